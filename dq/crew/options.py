"""How a supervisor was started."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Options:
    """The words of `python -m dq.crew`; `dq.client.launcher` says what each means."""

    db: str
    workers: int = 1
    executors: dict[str, str] = field(default_factory=dict)
    start_method: str = "fork"
    hang: float = 10.0
    grace: float = 5.0
    ephemeral: bool = False
    recycle_steps: int = 0  # after so many steps a worker process leaves; 0: never
    recycle_rss: int = 0  # the same for bytes that it has in memory
    keep: float = 0.0  # seconds that what has ended stays on record; 0: for ever
