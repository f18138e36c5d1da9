"""A registry gives the names of the configuration their meaning: networks, variants, data sets."""

from .errors import UserError, nearest


class Registry:
    """Named entries of one kind; `what` says which ('base network') in error messages."""

    def __init__(self, what: str):
        self.what = what
        self._entries = {}

    def register(self, name: str):
        """Decorator that files a function or class under `name`; a name can be given only once."""
        if name in self._entries:
            raise ValueError(f"the {self.what} '{name}' is registered twice")

        def add(entry):
            self._entries[name] = entry
            return entry

        return add

    def get(self, name: str, where: str = ""):
        """The entry called `name`; UserError with the nearest name if there is none, after `where` (the key)."""
        if name not in self._entries:
            raise UserError(f"{where or self.what}: '{name}' is unknown; {nearest(name, self._entries)}")
        return self._entries[name]

    def names(self) -> list[str]:
        """All names, sorted."""
        return sorted(self._entries)

    def __contains__(self, name) -> bool:
        return name in self._entries
