"""Addresses as messages show them."""

import re

# A number up to a slash is a port; one slash is what is left of two in a path of an address.
_BEFORE_HOST = re.compile(r"(\b[a-z][a-z0-9+.-]*:/{1,2}[^\s/:@]*):(?!\d*(?:[/?#\s]|$))\S*@", re.IGNORECASE)
_IN_QUERY = re.compile(r"([?&](?:password|passwd|passwort|pass|pwd|pw)=)[^&#\s]*", re.IGNORECASE)


def hide_password(text: str) -> str:
    """`text` with three stars for the password of each address in it, as in rtsp://NAME:***@HOST or ?pwd=***."""
    return _IN_QUERY.sub(r"\g<1>***", _BEFORE_HOST.sub(r"\g<1>:***@", text))
