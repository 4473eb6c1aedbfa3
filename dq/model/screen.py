"""Text of others on a terminal: what would move the cursor, set colours or turn the line around is shown and not done."""

from __future__ import annotations

import re

# Control characters but tab and newline, those of the second kind, halves of surrogate pairs, and what changes the
# direction of the text that follows.
_ACTIVE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def safe(text: str) -> str:
    r"""The text with every active character written out.

    >>> print(safe("a\x1b[31mb"))
    a\x1b[31mb
    """
    return _ACTIVE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
