"""A run, as its starter sees it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from dq.client import following, steering
from dq.errors import Cancelled, DqError, NoSuchRun, RunBlocked
from dq.executor.frames import Ended, Find, Record
from dq.model import names
from dq.model.states import RUN_FINAL, RunState

if TYPE_CHECKING:
    from collections.abc import Iterator

    from dq.client.ask import Ask
    from dq.client.connection import Connection

R_co = TypeVar("R_co", covariant=True)


class Run(Generic[R_co]):
    """One execution of a workflow. `engine.start` and `engine.get` return one.

    It stays valid while its engine is open, whatever happens to the supervisor.

    Attributes:
        id: The run's id.
        workflow: What the record calls its workflow, such as "flows:movie".

    Example:
        run = engine.start(movie, 240, id="movie-1")
        print(run.status, run.result(timeout=60))
    """

    def __init__(self, line: Connection, number: int, id: str, workflow: str) -> None:
        self.id = id
        self.workflow = workflow
        self._line = line
        self._number = number
        self._ask: Ask | None = None
        self._ended: Ended | None = None

    def __repr__(self) -> str:
        return f"<dq.Run {self.id!r} of {self.workflow}>"

    @property
    def status(self) -> RunState:
        """Where the run stands now: "running", "blocked", "completed", "failed" or "cancelled". Asks the supervisor.

        Raises:
            SupervisorLost: There is no supervisor, and there will be none.
        """
        if self._ended is not None:
            return RunState(self._ended.state)
        return RunState(self._record().state)

    def done(self) -> bool:
        """Whether the run has ended. Asks the supervisor."""
        return self.status in RUN_FINAL

    def progress(self) -> tuple[int, int]:
        """How many steps have a result, and how many were asked for so far."""
        record = self._record()
        return record.done, record.steps

    def result(self, timeout: float | None = None) -> R_co:
        """Waits for the end of the run and returns what its workflow returned.

        Args:
            timeout: Seconds to wait; None to wait as long as it takes.

        Raises:
            TimeoutError: The run has not ended in time; it goes on.
            RunBlocked: Its record does not fit the code; the message shows the difference.
            Cancelled: It was cancelled.
            Exception: What the workflow raised, of the same type where that can travel; else StepError.
            SupervisorLost: There is no supervisor, and there will be none.
        """
        ended = self._ended or self._wait(timeout)
        if ended.state == RunState.COMPLETED:
            return cast(R_co, self._line.codec.loads(ended.payload))
        if ended.state == RunState.FAILED:
            raise self._line.codec.restore(ended.payload)
        raise self._refusal(ended)

    def signal(self, name: str, payload: Any = None) -> None:
        """Sends a signal to this run: see `Engine.signal`."""
        steering.signal(self._line, self.id, name, payload)

    def cancel(self, *, now: bool = False) -> str:
        """Cancels this run: see `Engine.cancel`."""
        return steering.cancel(self._line, self.id, now=now)

    def published(self, key: str, default: Any = None) -> Any:
        """The latest value that the workflow has published under a key with `dq.publish`, `default` where there is none."""
        return following.published(self._line, self._number, names.checked("a published value's key", key), default)

    def follow(self) -> Iterator[following.Event]:
        """All that the workflow publishes, in order and from the first on, until the run ends.

        Example:
            for event in run.follow():
                print(event.at, event.key, event.value)
        """
        return following.follow(self._line, self._number)

    def _wait(self, timeout: float | None) -> Ended:
        """Asks once, however often it is waited for. A blocked run may go on, so that is asked again."""
        ask = self._ask
        if ask is None:
            ask = self._ask = self._line.watch(self._number)
        try:
            ended = cast(Ended, self._line.answer(ask, timeout))
        except TimeoutError as error:
            if ask.done():
                raise
            raise TimeoutError(f"run {self.id!r} has not ended within {timeout} s; it goes on") from error
        if ended.state in RUN_FINAL:
            self._ended = ended
        self._ask = None
        return ended

    def _refusal(self, ended: Ended) -> DqError:
        if ended.state == RunState.BLOCKED:
            return RunBlocked(ended.payload.decode("utf-8", "replace"))
        if ended.state == RunState.CANCELLED:
            return Cancelled(f"run {self.id!r} was cancelled")
        return NoSuchRun(f"run {self.id!r} is not in the file any more")

    def _record(self) -> Record:
        return find(self._line, self.id)


def find(line: Connection, id: str) -> Record:
    """A run as the file has it. Raises NoSuchRun."""
    record = cast(Record, line.ask(lambda ticket: Find(ticket, id)))
    if not record.id:
        raise NoSuchRun(f"there is no run {id!r} in the file; `dq ls` lists those that are")
    return record
