"""The one exception for mistakes in what a user gave: configuration, path, annotation, checkpoint."""

import difflib


class UserError(ValueError):
    """A mistake of the input in one line: where, what was given, what is allowed.  Scripts print it and exit 2."""


def nearest(name: str, allowed) -> str:
    """The tail of an error message about an unknown name: the nearest allowed one, else all of them."""
    allowed = sorted(str(a) for a in allowed)
    close = [a for a in allowed if a.casefold() == str(name).casefold()]
    close = close or difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(allowed) or 'nothing'}"
