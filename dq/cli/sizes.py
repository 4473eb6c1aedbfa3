"""Sizes as people read them."""

from __future__ import annotations

_UNITS = ("KiB", "MiB", "GiB", "TiB")


def size(count: int) -> str:
    """Bytes in the largest unit that leaves a number above 1.

    >>> size(512), size(4096), size(5_000_000)
    ('512 B', '4.0 KiB', '4.8 MiB')
    """
    if count < 1024:
        return f"{count} B"
    step = min((count.bit_length() - 1) // 10, len(_UNITS))
    return f"{count / 1024**step:.1f} {_UNITS[step - 1]}"
