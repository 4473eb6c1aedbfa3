"""What a supervisor does from its first word to its last: takes the file over, serves, and ends.

Exit codes: 0 all done, 4 running steps were handed back and run again later, 3 the file can't be used,
70 the disk failed, 75 another supervisor has the file.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import os
import resource
import signal
import socket
import sys

from dq import errors
from dq.crew.blame import say
from dq.crew.kernel import Linux
from dq.crew.launches import Launches
from dq.crew.options import Options
from dq.crew.ownership import Ownership, boot_id
from dq.crew.recovery import recover
from dq.crew.supervisor import Supervisor
from dq.executor import discovery, signing
from dq.executor.contract import Capability
from dq.executor.slots import SLOTS, SlotReader, open_slots
from dq.model.clock import SystemClock
from dq.store import faults, place
from dq.store.store import Store

_PR_SET_CHILD_SUBREAPER = 36
_WISHES = {signal.SIGTERM, signal.SIGINT}
DEFAULT_EXECUTOR = "cpu"
UNUSABLE, DISK_FAILED, IN_USE = 3, 70, 75
MEMBERS_MAX = SLOTS - 32  # the other slots are for hosts


def parse(arguments: list[str]) -> tuple[Options, int]:
    parser = argparse.ArgumentParser(prog="python -m dq.crew", description="Starts the supervisor of a database.")
    parser.add_argument("--db", required=True)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--executor", action="append", default=[], metavar="NAME=SPEC")
    parser.add_argument("--start-method", choices=["fork", "spawn"], default="fork")
    parser.add_argument("--hang", type=float, default=10.0)
    parser.add_argument("--grace", type=float, default=5.0)
    parser.add_argument("--ephemeral", action="store_true")
    parser.add_argument("--recycle-after", type=int, default=0, metavar="STEPS")
    parser.add_argument("--recycle-rss", type=int, default=0, metavar="BYTES")
    parser.add_argument("--keep", type=float, default=0.0, metavar="SECONDS")
    parser.add_argument("--ready-fd", type=int, default=-1)
    parser.add_argument("--key-fd", type=int, default=-1)
    chosen = parser.parse_args(arguments)
    if chosen.key_fd >= 0:
        with open(chosen.key_fd, "rb") as pipe:
            signing.use(pipe.read(signing.KEY_MAX))
    executors = dict(item.partition("=")[::2] for item in chosen.executor)
    options = Options(
        os.path.abspath(chosen.db), chosen.workers, executors, chosen.start_method, chosen.hang, chosen.grace,
        chosen.ephemeral, chosen.recycle_after, chosen.recycle_rss, chosen.keep,
    )  # fmt: skip
    return options, chosen.ready_fd


def main(arguments: list[str], launches: Launches | None = None) -> int:
    options, ready_fd = parse(arguments)
    # Whoever has the file may be asked to leave before it is ready to hear that; then it hears it when it is.
    signal.pthread_sigmask(signal.SIG_BLOCK, _WISHES)
    try:
        supervisor, listener = prepare(options, launches or Launches(options.db))
    except errors.DqError as error:
        tell(ready_fd, {"pid": getattr(error, "pid", 0), "error": type(error).__name__, "text": str(error)})
        if ready_fd < 0:
            sys.stderr.write(f"dq: {error}\n")
        return IN_USE if isinstance(error, errors.DatabaseInUse) else UNUSABLE
    supervisor.heed_signals()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WISHES)
    tell(ready_fd, {"pid": supervisor.pid, "error": None})
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)
    try:
        code = supervisor.serve(listener)
    except errors.StoreError as error:
        # What is not known to be on disk is on disk or not; only a successor that reads it can tell.
        say(f"{error} The supervisor stops; its successor goes on from what is on disk.")
        os._exit(DISK_FAILED)
    listener.close()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(options.db + ".sock")
    return code


def prepare(options: Options, launches: Launches) -> tuple[Supervisor, socket.socket]:
    """Takes the file over and puts it right. The order of the steps is what recovery rests on."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    # Before the lock: where there can't be a database, no lock file shall be left either.
    place.check_folder(options.db)
    place.check_file(options.db)
    place.check_beside(options.db)
    specs = _specs(options)
    sizes = {name: _sizes(spec) for name, spec in specs.items()}
    _check_room(sum(members for members, _, _ in sizes.values()))
    try:
        return _take_over(options, specs, sizes, launches)
    except OSError as error:
        raise faults.explain_os(error, str(error.filename or options.db)) from error


def _take_over(
    options: Options, specs: dict[str, str], sizes: dict[str, tuple[int, int, Capability]], launches: Launches
) -> tuple[Supervisor, socket.socket]:
    ownership = Ownership(options.db)
    ownership.take(os.getpid(), idle=not options.workers)
    clock = SystemClock()
    try:
        store = Store.open(options.db, clock=clock)
        slots = SlotReader(open_slots(options.db + ".slots", create=True))
        ownership.evict(slots)
        boot = store.boot(boot_id())
    except BaseException:
        ownership.release()
        raise
    supervisor = Supervisor(options, store, slots, clock, boot.epoch, launches, Linux())
    for name, size in sizes.items():
        supervisor.scheduler.add_pool(name, specs[name], *size)
    if sizes:
        supervisor.scheduler.pools[""] = supervisor.scheduler.pools[DEFAULT_EXECUTOR]
    try:
        recover(supervisor, slots, boot)
    except Exception as error:
        store.suspect(error)
        raise
    return supervisor, listen(options.db)


def _specs(options: Options) -> dict[str, str]:
    """The executors by name. "cpu" is the one that steps use which name none."""
    if not options.workers:
        return {}
    return {DEFAULT_EXECUTOR: f"process:{options.workers}", **options.executors}


def _sizes(text: str) -> tuple[int, int, Capability]:
    """How many members an executor has, how many bodies each runs at once, what it can do. Raises BadExecutor."""
    spec = discovery.parse(text)
    kind = discovery.load(spec.name)
    return kind.members(spec.size), kind.slots(spec.size), kind.capabilities


def _check_room(members: int) -> None:
    """Makes room for the descriptors of so many worker processes. Raises BadExecutor where they are too many."""
    if members > MEMBERS_MAX:
        raise errors.BadExecutor(
            f"{members} worker processes are more than one supervisor can keep, which is {MEMBERS_MAX}. Ask for fewer, "
            "or for threads: `--executor io=thread:1000`."
        )
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def listen(db: str) -> socket.socket:
    """The supervisor's socket, mode 0600, beside the file. Long paths are bound through their folder's descriptor."""
    path = db + ".sock"
    folder = os.open(os.path.dirname(path), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if os.path.lexists(path):
            os.unlink(path)  # a former supervisor's: this one has the lock
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        before = os.umask(0o177)
        try:
            sock.bind(f"/proc/self/fd/{folder}/{os.path.basename(path)}")
        finally:
            os.umask(before)
        sock.listen(128)
        return sock
    finally:
        os.close(folder)


def tell(fd: int, line: dict[str, object]) -> None:
    """Tells whoever has started this process how it went."""
    if fd >= 0:
        with open(fd, "w") as pipe:
            pipe.write(json.dumps(line) + "\n")
