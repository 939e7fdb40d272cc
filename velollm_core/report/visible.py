"""Characters that steer a terminal instead of being seen, made visible."""

from __future__ import annotations

import re

_UNSEEN = re.compile(
    "["
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters but tab and line feed
    "\u2028\u2029\u202a-\u202e\u2066-\u2069"  # line breaks and changes of direction
    "\ud800-\udfff"  # halves of surrogate pairs, which no encoding has
    "]"
)


def visible(text: str) -> str:
    r"""``text`` with such characters as their escapes, as ``\x1b``; tabs and line feeds stay.

    Names of models, files and engines are other people's: printed as they are they could move the
    cursor, set a title or recolour what follows.
    """
    return _UNSEEN.sub(_escape, text)


def _escape(found: re.Match[str]) -> str:
    return found[0].encode("unicode_escape").decode("ascii")
