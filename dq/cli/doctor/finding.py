"""What the doctor finds."""

from __future__ import annotations

from typing import NamedTuple

ERROR, WARNING, NOTE = "error", "warning", "note"


class Finding(NamedTuple):
    """Something that is not as it should be.

    Attributes:
        level: "error" where something is lost or broken, "warning" where it may come to that, "note" for what is good to know.
        check: What was looked at, in a word.
        what: What was found.
        why: Why it matters.
        do: What to do.
    """

    level: str
    check: str
    what: str
    why: str
    do: str
