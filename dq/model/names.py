"""Names that users give to signals, steps, published values and changes of the code: what is taken."""

from __future__ import annotations

from dq.errors import BadName

NAME_MAX = 512  # characters


def checked(what: str, name: object) -> str:
    """The name, if it is one. Raises BadName, which says the rule that it breaks.

    >>> checked("a signal's name", "approve")
    'approve'
    """
    if not isinstance(name, str):
        raise BadName(f"{what} is text, not {type(name).__name__}")
    if not 0 < len(name) <= NAME_MAX:
        raise BadName(f"{what} has from 1 to {NAME_MAX} characters; this one has {len(name)}: {name[:40]!r}")
    if not (name.isascii() and name.isprintable()):
        for character in name:
            code = ord(character)
            if code < 0x20 or 0x7F <= code < 0xA0 or 0xD800 <= code < 0xE000:
                kind = "half of a surrogate pair" if code >= 0xD800 else "a control character"
                raise BadName(f"{what} holds {kind}, {character!r}: {name[:80]!r}; use printable characters")
    return name
