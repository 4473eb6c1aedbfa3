"""The life of a worker or a bridge: take claims, hand their jobs to the executor, send what comes of them."""

from __future__ import annotations

import os
import select
import sys
import threading
import traceback
from socket import SHUT_RD
from time import monotonic_ns
from typing import NoReturn

from dq.errors import BadExecutor
from dq.executor import discovery, progress, signed
from dq.executor.berth import GARBLED, LEFT, ORPHANED, UNFIT, Berth, GivenBack
from dq.executor.contract import About, Executor
from dq.executor.desk import MemberDesk, SerialDesk, SharedDesk
from dq.executor.envelope import Runner, flush_streams
from dq.executor.frames import BadFrame, Claim, Define, Stop
from dq.executor.link import Closed, Link

_AWAKE = 200_000  # nanoseconds


def main(berth: Berth) -> NoReturn:
    """Serves as a worker or a bridge until the supervisor says Stop or is gone. Never returns.

    The process leaves with an exit code of `dq.executor.berth`: LEFT after Stop, ORPHANED, UNFIT, GARBLED; 1 is an error
    of dq's own or of the executor, with its traceback on stderr.
    """
    code = 1
    try:
        code = _serve(berth)
    except Closed:
        code = ORPHANED
    except BadFrame as error:
        sys.stderr.write(f"dq: worker {os.getpid()} received garbage: {error}\n")
        code = GARBLED
    except BaseException:  # noqa: BLE001 -- this is the end of the process, whatever it was
        traceback.print_exc()
    finally:
        flush_streams()
        os._exit(code)


def _serve(berth: Berth) -> int:
    link = Link(berth.sock)
    try:
        executor = discovery.make(berth.executor)
        pump = Pump(berth, link, executor)
        pump.start()
    except BadExecutor as error:
        berth.unfit(link, str(error))
        return UNFIT
    except Exception:  # noqa: BLE001 -- an executor may want the network, a cluster, anything
        berth.unfit(link, f"executor {berth.executor} can't start:\n{traceback.format_exc()}")
        return UNFIT
    return pump.serve()


class Pump:
    """Takes messages in the main thread and, while that is in a body, in the control thread at need."""

    def __init__(self, berth: Berth, link: Link, executor: Executor) -> None:
        self._berth = berth
        self._link = link
        self._executor = executor
        self._runner = Runner(signed.own(berth.blobs, patient=True))
        self._desk: MemberDesk = SerialDesk(link) if executor.serial else SharedDesk(link)
        self._receiving = threading.Lock()  # held for moments only, never while something is awaited
        self._readable = select.poll()
        self._readable.register(link.fileno(), select.POLLIN)
        self._gap = 0  # nanoseconds between the end of the work and the next message, of late
        self._stopping = False

    def start(self) -> None:
        """Gets the executor ready. Raises whatever it raises."""
        self._executor.start(self._desk)

    def serve(self) -> int:
        """Returns when Stop was said and everything begun is sent. Raises Closed and BadFrame."""
        self._desk.slot = self._berth.report_for_work(
            self._link, on_revoke=self._revoke, on_stop=self._stop, on_beat=self._desk.rescue
        )
        self._runner.trials.time = self._desk.slot.time
        progress.connect(self._desk.progress)
        try:
            while not (self._stopping or self._runner.trials.bloated):
                self._await()
                with self._receiving:
                    self._take(self._link.poll())
                self._desk.hand_out(self._executor)
        except Closed:
            if not self._stopping:
                raise
        self._executor.shutdown(None)
        self._desk.close()
        return LEFT

    def _await(self) -> None:
        """Waits for something to read, awake for as long as sleep would not pay.

        A sleeping process takes some 20 microseconds to wake, which doubles the time of a step that waits for the one
        before it; with nothing in sight it must not burn a processor.
        """
        start = now = monotonic_ns()
        if self._gap < _AWAKE:
            while now < start + _AWAKE and not self._readable.poll(0):
                os.sched_yield()
                now = monotonic_ns()
        self._readable.poll()
        self._gap += (min(monotonic_ns() - start, 10 * _AWAKE) - self._gap) // 4

    def _take(self, messages: list[object]) -> None:
        for message in messages:
            if isinstance(message, Claim):
                entry = self._runner.entry_of(message.rows[0][2]) if message.rows else self._runner.entry
                abouts = _abouts(message) if message.runs or message.tries else ()
                self._desk.accept(message.epoch, message.rows, entry, abouts)
            elif isinstance(message, Define):
                self._runner.define(message)
            elif isinstance(message, Stop):
                self._desk.revoke()
                self._stopping = True
            else:
                raise BadFrame(f"a {type(message).__name__} for a worker")

    def _revoke(self) -> GivenBack:
        """Runs in the control thread, mostly while the main thread is in a long body."""
        with self._receiving:
            self._take(self._link.poll())
        self._desk.rescue()
        return self._desk.revoke()

    def _stop(self) -> None:
        """Runs in the control thread. The main thread may be waiting for messages."""
        self._stopping = True
        self._berth.sock.shutdown(SHUT_RD)


def _abouts(claim: Claim) -> list[About | None]:
    """What the jobs of a claim may know besides."""
    tries = {tried.step: tried for tried in claim.tries}
    runs = claim.runs or [""]
    if len(runs) == 1 and not tries:
        return [About(runs[0])] * len(claim.rows)
    runs = runs * len(claim.rows) if len(runs) == 1 else runs
    if len(runs) != len(claim.rows):
        raise BadFrame("a claim whose runs do not fit its rows")
    return [About(run, tries.get(row[0])) for run, row in zip(runs, claim.rows, strict=True)]
