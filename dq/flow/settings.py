"""What a decorator, or `.options(...)`, says of a function: checked where it is said, packed where it travels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from dq.model import names

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime, timedelta

    from dq.executor.frames import Term
    from dq.flow.queue import Queue

    Span = float | timedelta  # seconds

ON_CRASH = ("retry", "fail", "park")
PRIORITY_MAX = 1_000_000_000
WORD_MAX = 1000  # characters of `dedup`


class Settings(NamedTuple):
    """All options of steps and workflows; `dq.step` and `dq.workflow` say what each means."""

    name: str = ""
    executor: str = ""
    max_crashes: int = 3
    timeout: Span | None = None
    memory: int | None = None
    on_crash: str = "retry"
    stop: Callable[..., Any] | None = None
    wait: Callable[..., Any] | None = None
    retry: Callable[..., Any] | None = None
    queue: Queue | None = None
    priority: int = 0
    delay: Span | None = None
    at: datetime | None = None
    dedup: str = ""
    dedup_for: Span | None = None
    detached: bool = False
    version: str = ""
    debounce: Span | None = None

    def change(self, changes: dict[str, Any]) -> Settings:
        """The same with some of them changed. Raises TypeError and ValueError, which name the option."""
        given = {key: value for key, value in changes.items() if value is not None}
        unknown = given.keys() - set(self._fields)
        if unknown:
            raise TypeError(f"there is no option {min(unknown)!r}; there are {', '.join(self._fields)}")
        return _checked(self._replace(**given))

    @property
    def definition(self) -> tuple[Any, ...]:
        """What is the same for all calls of the function."""
        return self._replace(priority=0, delay=None, at=None, dedup="", dedup_for=None, debounce=None)

    def pack(self, source: str = "") -> bytes:
        """What travels with the function's definition."""
        from dq.executor import options, retrying

        return options.pack(
            options.Options(
                timeout=micros(self.timeout),
                memory=self.memory or 0,
                on_crash=self.on_crash,
                retry=retrying.pack(self.stop, self.wait, self.retry),
                queue=self.queue.pack() if self.queue is not None else b"",
                detached=self.detached,
                version=self.version,
                source=source,
            )
        )

    @property
    def has_term(self) -> bool:
        """Whether a call of the function says more than which function and which arguments."""
        return bool(
            (self.queue is not None and self.queue.key is not None)
            or self.priority
            or self.delay is not None
            or self.at is not None
            or self.dedup
        )

    def term(self, step: int, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Term:
        """What one call waits for besides a worker. Raises what a queue's `key` raises."""
        from dq.executor.frames import Term

        return Term(
            step,
            after=micros(self.delay),
            at=int(self.at.timestamp() * 1_000_000) if self.at is not None else 0,
            priority=self.priority,
            key=self.queue.key_of(args, kwargs) if self.queue is not None else "",
            dedup=self.dedup,
            dedup_for=micros(self.dedup_for),
            debounce=micros(self.debounce),
        )


def micros(span: Span | None) -> int:
    """A span of time in whole microseconds, rounded up; 0 for None.

    >>> micros(0.5), micros(None)
    (500000, 0)
    """
    if span is None:
        return 0
    seconds = span if isinstance(span, (int, float)) else span.total_seconds()
    return -int(-seconds * 1_000_000 // 1)


def _is_text(word: str) -> bool:
    """Whether it can be written down: halves of surrogate pairs can't."""
    return word.isascii() or not any("\ud800" <= character <= "\udfff" for character in word)


def _check_terms(settings: Settings) -> None:
    """Raises ValueError for what one call can't wait for."""
    priority: Any = settings.priority
    if not isinstance(priority, int) or abs(priority) > PRIORITY_MAX:
        raise ValueError(f"priority is {priority!r}; it is a whole number, from {-PRIORITY_MAX} to {PRIORITY_MAX}")
    word: Any = settings.dedup
    if not isinstance(word, str) or len(word) > WORD_MAX or not _is_text(word):
        raise ValueError(f"dedup is {word!r:.80}; it is a text of up to {WORD_MAX} characters")
    if settings.debounce is not None and not word:
        raise ValueError("debounce needs dedup, the word that says which steps take one another's place")
    if settings.delay is not None and micros(settings.delay) < 0:
        raise ValueError(f"delay is {settings.delay}; nothing can begin in the past")
    if settings.at is not None and settings.at.tzinfo is None:
        raise ValueError(f"at is {settings.at}, which has no time zone; use datetime.now(tz=UTC), say")


def _checked(settings: Settings) -> Settings:
    for option in ("name", "executor", "version"):
        if getattr(settings, option) != "":
            names.checked(f"the option {option}", getattr(settings, option))
    if settings.max_crashes < 1:
        raise ValueError(f"max_crashes is {settings.max_crashes}; it must be at least 1, since the first crash is one")
    if settings.on_crash not in ON_CRASH:
        raise ValueError(f"on_crash is {settings.on_crash!r}; it is one of {', '.join(ON_CRASH)}")
    for name in ("timeout", "dedup_for", "debounce"):
        span = getattr(settings, name)
        if span is not None and micros(span) <= 0:
            raise ValueError(f"{name} is {span}; it is a time in seconds, or a timedelta, above 0")
    _check_terms(settings)
    if settings.memory is not None and settings.memory < 1 << 20:
        raise ValueError(f"memory is {settings.memory}; it is a limit in bytes, of a megabyte at least")
    for name in ("stop", "wait", "retry"):
        given = getattr(settings, name)
        if given is not None and not callable(given):
            raise TypeError(
                f"{name} is {given!r}; it is one of tenacity's objects, such as tenacity.stop_after_attempt(5)"
            )
    return settings
