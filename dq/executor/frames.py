"""Every message between dq's processes, and how it becomes bytes.

A frame is its length (4 bytes, little endian) and a msgpack array whose first item is the message's tag. The decoder
checks types and lengths, so a malformed frame is an exception in the receiver and never half a message.
Payloads inside are opaque bytes (`payload`).
"""

# msgspec hands `frozen` down to subclasses, and pyright wants it repeated in each of them.
# pyright: reportGeneralTypeIssues=false

from __future__ import annotations

import struct

import msgspec

VERSION = 1
FRAME_MAX = 1 << 30  # bytes; larger payloads travel as side files
HEAD = struct.Struct("<I")


class Message(msgspec.Struct, array_like=True, frozen=True, gc=False):
    """The base of all messages."""


class Context(msgspec.Struct, frozen=True, array_like=True):
    """Where user code comes from: what a template needs to import it."""

    python: str  # the interpreter's path
    script: str  # the file behind `__main__`, or ""
    cwd: str
    path: tuple[str, ...]  # sys.path
    source: str  # hash of the script's text, or ""


class Hello(Message, frozen=True, tag=1):
    """A client introduces itself. `keep` asks an engine's own supervisor to stay while the client is attached."""

    version: int
    pid: int
    nonce: bytes
    context: Context | None
    works: bool = False  # whether it would start a supervisor that has workers


class Welcome(Message, frozen=True, tag=2):
    """The answer to Hello, with a first block of ids. Ids are never given out twice, across boots either."""

    boot_epoch: int
    pid: int
    first: int
    count: int
    works: bool = True  # whether this supervisor has workers


class Lease(Message, frozen=True, tag=3):
    """Asks for another block of ids."""


class Leased(Message, frozen=True, tag=4):
    first: int
    count: int


class Define(Message, frozen=True, tag=5):
    """Introduces a function under a number: the sender's own one on the way in, the file's on the way to workers."""

    number: int
    name: str  # "module:qualname"; the label of a function that travels by value
    kind: str  # "step" or "workflow"
    digest: bytes  # identifies name, code and options; 16 bytes
    code: bytes  # cloudpickle, or b"" when it travels by name
    executor: str
    max_crashes: int
    options: bytes = b""  # a packed `options.Options`; b"" for none


Value = int | float | str | bytes | None
Params = list[Value] | dict[str, Value]  # of a user's statement


class Term(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What a step waits for besides a worker."""

    step: int
    after: int = 0  # microseconds from when it is taken down; 0: no delay
    at: int = 0  # microseconds UTC; 0: at once
    priority: int = 0  # higher goes first
    key: str = ""  # its queue's limits count by it
    dedup: str = ""
    dedup_for: int = 0  # microseconds; 0: while that step is open
    topic: str = ""  # the signal that a wait is for; the key of what is published
    data: bytes = b""  # a signal's payload; `key` is the run that it is sent to


class Try(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What came of a step's earlier attempts, where that matters to the next one."""

    step: int
    failures: int  # attempts that count for its retries
    since: int  # when the first of them began; microseconds UTC
    cursor: bytes  # a payload: how far it said that it had come; b"" for nothing
    verdict: bytes  # the failure of an attempt that nobody has judged yet; b"" for none


class Notice(Message, frozen=True, tag=6):
    """Something a person should read: a warning that is not an error of this client."""

    text: str


class Refused(Message, frozen=True, tag=7):
    """What was asked under `ticket` is refused; `error` names a class of dq.errors."""

    ticket: int
    error: str
    text: str


class Submit(Message, frozen=True, tag=10):
    """Steps submitted alone: (id, function number, arguments). Ids of one frame are consecutive."""

    rows: list[tuple[int, int, bytes]]
    terms: list[Term] = []


class Resubmit(Message, frozen=True, tag=11):
    """The same after a reconnect: rows that may be known already."""

    rows: list[tuple[int, int, bytes]]
    terms: list[Term] = []


class Acked(Message, frozen=True, tag=12):
    """That many Submit, Resubmit, Start and Signal frames, in the order they were sent, are on disk now."""

    frames: int


class Adopt(Message, frozen=True, tag=13):
    """After a reconnect: results of these steps and runs, acknowledged earlier, are still wanted."""

    steps: list[int]
    runs: list[int]


class Start(Message, frozen=True, tag=14):
    """Starts a run, or finds the one of that name."""

    ticket: int
    id: int
    name: str
    function: int
    args: bytes
    fingerprint: bytes


class Started(Message, frozen=True, tag=15):
    """The run is on disk. `fresh` is false where it was there before; then `id` is the older one's."""

    ticket: int
    id: int
    fresh: bool


class Clash(Message, frozen=True, tag=16):
    """The run's name is taken by something else: here is what is recorded."""

    ticket: int
    workflow: str
    args: bytes


class Find(Message, frozen=True, tag=17):
    """Asks for a run by name."""

    ticket: int
    name: str


class Record(Message, frozen=True, tag=18):
    """A run as the file has it. `id` is 0 where there is none."""

    ticket: int
    id: int
    workflow: str
    state: str
    reason: str
    done: int  # steps with a result
    steps: int


class Watch(Message, frozen=True, tag=19):
    """Ended of this run is wanted, at once where it has ended already."""

    run: int


class Ended(Message, frozen=True, tag=20):
    """A run reached a final state or is blocked; `payload` is its result, its failure, or the reason as text."""

    run: int
    state: str
    payload: bytes


class Cancel(Message, frozen=True, tag=21):
    """Cancels steps submitted alone that nobody has claimed."""

    ticket: int
    steps: list[int]


class CancelDone(Message, frozen=True, tag=22):
    ticket: int
    steps: list[int]  # those that were cancelled


class Census(Message, frozen=True, tag=23):
    """Asks who is at work."""

    ticket: int


class Crew(Message, frozen=True, tag=24):
    """(kind, pid, slot, steps finished, id of the step or run at work or 0, microseconds it has been at work)."""

    ticket: int
    boot_epoch: int
    rows: list[tuple[str, int, int, int, int, int]]
    pending: int
    claimed: int


class Flush(Message, frozen=True, tag=25):
    """Answered by Flushed when everything sent before is on disk."""

    ticket: int


class Flushed(Message, frozen=True, tag=26):
    ticket: int


class Bye(Message, frozen=True, tag=27):
    """The client leaves. `now` asks a supervisor that would stop with it not to drain."""

    now: bool


class Farewell(Message, frozen=True, tag=28):
    """The answer to Bye: whether the supervisor stops too, since nobody is left."""

    stops: bool


class Signal(Message, frozen=True, tag=30):
    """A signal to a run. Answered by Done or Refused; `id` is new, and says whether it is known already."""

    ticket: int
    id: int
    run: str
    name: str
    payload: bytes


class CancelRun(Message, frozen=True, tag=31):
    """Asks a run to end. `now`: at once, without another word of its code. Answered by Done or Refused.

    `id` is new, so that a message which comes again after a reconnect is not a second cancel.
    """

    ticket: int
    id: int
    run: str
    now: bool


class Resume(Message, frozen=True, tag=32):
    """Tries a blocked run again. Answered by Done or Refused."""

    ticket: int
    run: str


class Done(Message, frozen=True, tag=33):
    """What was asked under `ticket` is on disk; `text` says what came of it."""

    ticket: int
    text: str = ""


class Published(Message, frozen=True, tag=34):
    """Asks for the latest value that a run has published under a key. Answered by Events."""

    ticket: int
    run: int
    key: str


class Follow(Message, frozen=True, tag=35):
    """Asks for what a run has published after the step `after`; answered by Events, when there is something."""

    ticket: int
    run: int
    after: int


class Events(Message, frozen=True, tag=36):
    """What a run has published: (step, key, payload, at). `state` is not "" where it has ended, and this is the last."""

    ticket: int
    rows: list[tuple[int, str, bytes, int]]
    state: str


class Plan(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A schedule as the file has it. Times are microseconds UTC; 0: none."""

    id: str
    workflow: str
    expression: str
    tz: str
    catch_up: str
    overlap: str
    paused: bool
    next_at: int
    last_at: int
    last_run: str
    waiting_at: int
    skipped: int
    created_at: int


class Book(Message, frozen=True, tag=80):
    """Puts a schedule on record, or changes the one of that id. Answered by Plans, which has it, or Refused."""

    ticket: int
    id: str
    function: int
    args: bytes
    fingerprint: bytes
    expression: str
    tz: str
    catch_up: str
    overlap: str


class ListPlans(Message, frozen=True, tag=81):
    """Asks for all schedules."""

    ticket: int


class Plans(Message, frozen=True, tag=82):
    ticket: int
    rows: list[Plan]


class Replan(Message, frozen=True, tag=83):
    """Pauses, resumes or deletes a schedule: `what` says which. Answered by Done or Refused."""

    ticket: int
    id: str
    what: str


class Trigger(Message, frozen=True, tag=84):
    """Starts a run of a schedule now. Answered by Done, whose text is the run's name, or Refused.

    `run` is the id that the run gets, so that a message which comes again after a reconnect starts no second one.
    """

    ticket: int
    run: int
    id: str


class ListRuns(Message, frozen=True, tag=37):
    """Asks for runs, the newest first: those before the id `before`, in one of these states. Answered by Runs."""

    ticket: int
    before: int
    states: list[str]
    limit: int


class Runs(Message, frozen=True, tag=38):
    """(id, name, workflow, state, parent or 0, created at, ended at or 0)."""

    ticket: int
    rows: list[tuple[int, str, str, str, int, int, int]]


class Fork(Message, frozen=True, tag=40):
    """Asks for a worker, bridge or host; its two sockets come with the frame."""

    kind: str  # "worker" or "host"
    executor: str  # spec, such as "process:4"; "" for a host
    slot: int
    nonce: bytes
    boot_epoch: int


class Ready(Message, frozen=True, tag=41):
    """User code is imported. With more than one thread, forking is unsafe and spawning is used."""

    threads: int


class Broken(Message, frozen=True, tag=42):
    """User code can't be imported. `guard` is what its author must be told where an engine is opened on the way."""

    text: str
    guard: str


class Joined(Message, frozen=True, tag=43):
    """The first frame of a new worker or host: it can be asked to work."""

    pid: int
    started: int  # field 22 of /proc/PID/stat
    nonce: bytes


class Unfit(Message, frozen=True, tag=44):
    """A new worker or host can't start; the text says why."""

    text: str


class Preload(Message, frozen=True, tag=46):
    """Asks a template to import modules, so that members have them from birth. Answered by Ready."""

    modules: list[str]


class Claim(Message, frozen=True, tag=50):
    """Steps that are this worker's now, in order: (id, attempt, function, arguments)."""

    epoch: int
    rows: list[tuple[int, int, int, bytes]]
    tries: list[Try] = []


class Results(Message, frozen=True, tag=51):
    """What came out: (id, status, payload, begun at in microseconds UTC, nanoseconds in the body).

    The supervisor passes it on to the client that submitted the steps, byte for byte, once it is on disk.
    """

    epoch: int
    rows: list[tuple[int, int, bytes, int, int]]


class Revoke(Message, frozen=True, tag=52):
    """On the control socket: give back what you have not begun."""


class GaveBack(Message, frozen=True, tag=53):
    """On the control socket, the answer: (epoch, id) of steps that will not be begun."""

    rows: list[tuple[int, int]]


class Stop(Message, frozen=True, tag=54):
    """Finish what is begun, then leave."""


class Progress(Message, frozen=True, tag=55):
    """How far the body of a step says that it has come: a payload for its next attempt."""

    epoch: int
    step: int
    cursor: bytes


class Effects(Message, frozen=True, tag=56):
    """A body has returned, and this is to be done together with its completion, or not at all.

    `submits` are steps alone: (place of the function in `defines`, arguments); the `step` of a term is a place in them.
    """

    epoch: int
    step: int
    payload: bytes
    began: int  # microseconds UTC
    busy: int  # nanoseconds in the body
    statements: list[tuple[str, Params, int | None]]  # with the number of rows that each must change
    signals: list[tuple[str, str, bytes]]  # (run, name, payload)
    defines: list[Define]
    submits: list[tuple[int, bytes]]
    terms: list[Term] = []


class Execute(Message, frozen=True, tag=57):
    """A statement from outside, under the same rules. Answered by Done, whose text is a payload in hex, or Refused.

    `id` is new, so that a message which comes again after a reconnect is not done twice.
    """

    ticket: int
    id: int
    sql: str
    params: Params


class Assign(Message, frozen=True, tag=60):
    """A run is this host's now. Its history follows in History frames; the last one says so."""

    run: int
    name: str
    function: int
    args: bytes
    created_at: int  # microseconds UTC
    cancel: tuple[int, int, str] | None = None  # (seq, at, cause)
    chapter: int = 0  # how many checkpoints are behind it
    scheduled_at: int = 0  # microseconds UTC: the time of its schedule; 0: none
    draws_as: str = ""  # "ID NAME" of the run whose random numbers it draws, being a fork of it


class History(Message, frozen=True, tag=61):
    """Recorded steps of a run: (id, function, scope, occurrence, fingerprint, args, seq, status, payload, at).

    A step without a result has seq 0 and status -1. `at` is when it ended, in microseconds UTC.
    """

    run: int
    rows: list[tuple[int, int, str, int, bytes, bytes, int, int, bytes, int]]
    last: bool


class More(Message, frozen=True, tag=68):
    """A host has used up what it has of a run's history, and wants the next part."""

    run: int


class Steps(Message, frozen=True, tag=62):
    """A host's runs ask for steps: (id, run, function number, scope, occurrence, fingerprint, args)."""

    rows: list[tuple[int, int, int, str, int, bytes, bytes]]
    terms: list[Term] = []


class Deliver(Message, frozen=True, tag=63):
    """Results for a host's runs, in the order of their numbers: (run, step, seq, status, payload, at).

    Step 0 stands for a cancel of the run; its payload is the cause as text.
    """

    rows: list[tuple[int, int, int, int, bytes, int]]


class Finish(Message, frozen=True, tag=64):
    """A run has ended: `state` is completed or failed."""

    run: int
    state: str
    payload: bytes


class Block(Message, frozen=True, tag=65):
    """A run can't go on: its history does not fit the code."""

    run: int
    reason: str


class Withdraw(Message, frozen=True, tag=66):
    """A host's runs do not want these steps any more: (run, step). Those that run are killed."""

    rows: list[tuple[int, int]]


class Forget(Message, frozen=True, tag=67):
    """A run is not this host's any more: it drops it without another word."""

    run: int


Any = (
    Hello | Welcome | Lease | Leased | Define | Notice | Refused | Submit | Resubmit | Acked | Adopt | Start | Started
    | Clash | Find | Record | Watch | Ended | Cancel | CancelDone | Census | Crew | Flush | Flushed | Bye | Farewell
    | Fork | Ready | Broken | Joined | Unfit | Preload | Claim | Results | Revoke | GaveBack | Stop | Assign | History | Steps
    | Deliver | Finish | Block | Signal | CancelRun | Resume | Done | Progress | Withdraw | Forget | More | Published | Follow | Events | ListRuns
    | Runs
    | Book | ListPlans | Plans | Replan | Trigger
    | Effects | Execute
)  # fmt: skip

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Any] = msgspec.msgpack.Decoder(Any)


class BadFrame(Exception):
    """Bytes that are not a frame of this version."""


def encode(message: Message) -> bytes:
    """The whole frame, length included.

    >>> decode(encode(Flush(7))[4:])
    Flush(ticket=7)
    """
    buffer = bytearray(4)
    _encoder.encode_into(message, buffer, 4)
    HEAD.pack_into(buffer, 0, len(buffer) - 4)
    return bytes(buffer)


def decode(body: bytes | bytearray | memoryview) -> Any:
    """The message of a frame's body. Raises BadFrame."""
    try:
        return _decoder.decode(body)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise BadFrame(str(error)) from error
