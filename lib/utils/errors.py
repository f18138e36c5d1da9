"""The one exception for mistakes in what a user gave, configuration, path, annotation or checkpoint; how it is told."""

import difflib


class UserError(ValueError):
    """A mistake of the input in one line: where, what was given, what is allowed.  Scripts print it and exit 2."""


def one_line(text: str) -> str:
    """The text with line ends and control characters, which names of files and classes may hold, as escapes."""
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def nearest(name: str, allowed) -> str:
    """The tail of an error message about an unknown name: the nearest allowed one, else all of them."""
    allowed = sorted(str(a) for a in allowed)
    close = [a for a in allowed if a.casefold() == str(name).casefold()]
    close = close or difflib.get_close_matches(str(name), allowed, n=1, cutoff=0.6)
    return f"did you mean '{close[0]}'?" if close else f"allowed: {', '.join(allowed) or 'nothing'}"
