"""The stage: a process that replays runs for `dq check`, in the place that their code comes from.

    python -m dq.flow.stage FD SECONDS BLOBS

It gets a Hello with the context, and answers with a line. Then it gets Define, Assign and History frames as a host does;
each run, when its history is whole, is answered with a line of JSON. It has no database and no supervisor.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import traceback
from types import FrameType
from typing import Any, NoReturn

import msgspec

from dq.executor import current, functions, script, signing
from dq.executor.frames import Assign, Context, Define, Hello, History
from dq.executor.link import Closed, Link
from dq.executor.options import unpack
from dq.flow import registry
from dq.flow.player import HistoryRow, Player
from dq.flow.verdict import Verdict


class Told(msgspec.Struct, frozen=True):
    """What the stage says of one run, or, with the run 0, of its own beginning."""

    run: int
    outcome: str
    reason: str = ""
    breaks: bool = False
    waits_for: list[str] = []
    asked: list[str] = []
    notes: list[str] = []


class Overdue(BaseException):
    """The code of a run goes on and on."""


class Stage:
    """Plays what comes."""

    def __init__(self, sock: socket.socket, seconds: float, folder: str) -> None:
        self._sock = sock
        self._link = Link(sock)
        self._seconds = seconds
        self._folder = folder
        self._defines: dict[int, Define] = {}
        self._told: Assign | None = None
        self._rows: list[HistoryRow] = []
        self._players: list[Player] = []  # kept, since to let go of a run that waits would unwind its code

    def serve(self) -> None:
        """Plays runs until the other end is closed."""
        signal.signal(signal.SIGALRM, self._overdue)
        while True:
            for message in self._link.receive():
                self._hear(message)

    def _hear(self, message: Any) -> None:
        match message:
            case Hello(nonce=home, context=Context() as context):
                signing.use(message.key)
                self._enter(context, home)
            case Define():
                self._defines[message.number] = message
            case Assign():
                self._told, self._rows = message, []
            case History():
                self._rows += message.rows
                if message.last and self._told is not None:
                    self._say(self._play(self._told))
            case _:
                raise ValueError(f"a {type(message).__name__} sent to a stage")

    def _enter(self, context: Context, home: bytes) -> None:
        current.settle(home.decode())
        try:
            with current.importing():
                script.enter(context)
        except BaseException as error:  # noqa: BLE001 -- a script may raise anything, sys.exit included
            text = "".join(traceback.format_exception(type(error), error, error.__traceback__, limit=-6)).rstrip()
            self._say(Told(0, "broken", f"its code can't be imported:\n{text}", breaks=True))
            os._exit(1)
        self._say(Told(0, "ready"))

    def _play(self, told: Assign) -> Told:
        define = self._defines[told.function]
        player = Player(
            told, self._defines, self._rows, lambda: functions.recorded(define.name, define.code), self._folder
        )
        self._players.append(player)
        signal.setitimer(signal.ITIMER_REAL, self._seconds)
        try:
            verdict = player.play()
        except Overdue as error:
            return Told(told.run, "overdue", str(error), breaks=True)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if isinstance(verdict.error, Overdue):
            return Told(told.run, "overdue", str(verdict.error), breaks=True)
        return judge(told.run, verdict, _source_note(define) if verdict.goes_on else "")

    def _overdue(self, _number: int, frame: FrameType | None) -> None:
        where = f"{frame.f_code.co_filename}:{frame.f_lineno}" if frame is not None else "an unknown place"
        raise Overdue(
            f"its code did not come to rest within {self._seconds:g} s; then it was at {where}. It may loop for ever"
        )

    def _say(self, told: Told) -> None:
        sys.stdout.flush()
        self._sock.sendall(msgspec.json.encode(told) + b"\n")


def judge(run: int, verdict: Verdict, *notes: str) -> Told:
    """A verdict as it travels."""
    told = [note for note in (*verdict.notes(), *notes) if note]
    waits, asked = [str(spot) for spot in verdict.waits_for], [str(spot) for spot in verdict.asked]
    return Told(run, verdict.outcome, verdict.reason, not verdict.goes_on, waits, asked, told)


def _source_note(define: Define) -> str:
    """Whether the workflow's text is another one than when the run was started."""
    before = unpack(define.options).source
    if not before or (define.code and not registry.is_reference(define.code)):
        return ""
    now = registry.source_of(functions.recorded(define.name, define.code))
    return "the text of its workflow has changed since it was started" if now and now != before else ""


def main() -> NoReturn:
    fd, seconds, folder = int(sys.argv[1]), float(sys.argv[2]), sys.argv[3]
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the command, which ends this process
    try:
        Stage(socket.socket(fileno=fd), seconds, folder).serve()
    except Closed:
        os._exit(0)
    except BaseException:  # noqa: BLE001 -- the last line of a process
        traceback.print_exc()
    os._exit(1)


if __name__ == "__main__":
    main()
