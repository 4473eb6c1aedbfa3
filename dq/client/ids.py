"""The ids of runs: what is accepted, and what is made where none is given."""

from __future__ import annotations

import secrets
import time
import unicodedata

from dq.errors import BadRunId

CHARACTERS_MAX = 512
BYTES_MAX = 1024


def checked(id: object) -> str:
    """The id in its one form (NFC). Raises BadRunId, which says the rule that it breaks.

    >>> checked("movie-1")
    'movie-1'
    """
    if not isinstance(id, str):
        raise BadRunId(f"a run id is a string, not {type(id).__name__}")
    id = unicodedata.normalize("NFC", id)
    if not id:
        raise BadRunId("a run id may not be empty; leave it out to get a new one")
    if len(id) > CHARACTERS_MAX:
        raise BadRunId(f"a run id may have {CHARACTERS_MAX} characters; this one has {len(id)}: {id[:40]!r}...")
    for character in id:
        if unicodedata.category(character) in ("Cc", "Cs"):
            name = "a control character" if unicodedata.category(character) == "Cc" else "half of a surrogate pair"
            raise BadRunId(f"the run id {id[:80]!r} holds {name}, {character!r}; use printable characters")
    if len(id.encode()) > BYTES_MAX:
        raise BadRunId(f"a run id may have {BYTES_MAX} bytes in UTF-8; this one has {len(id.encode())}")
    return id


def fresh() -> str:
    """A new id; later ones sort after earlier ones."""
    return f"{int(time.time() * 1000):011x}{secrets.token_hex(6)}"
