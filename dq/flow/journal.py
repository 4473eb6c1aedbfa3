"""The journal of a run: what is recorded of it, what it has asked for, and in which order it hears of what came.

    request ──► recorded with a result ──► arrived ──► delivered, lowest number first, one each time the run rests
            ├─► recorded without one ────► waits ──┘
            └─► new: written down ───────► waits ──┘

The same rule holds live and on replay, so a run sees the same completions in the same order both times.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import NamedTuple, Protocol

from dq.executor.options import PATCHED

UNASKED = -1  # the place of what nobody has asked for


class Target(Protocol):
    """What a completion is delivered to. `index` is the place that was given with the request."""

    def take(self, index: int, status: int, payload: bytes) -> None: ...


class Ignored:
    """The target of what nobody waits for."""

    let_go = True

    def take(self, index: int, status: int, payload: bytes) -> None: ...


class Recorded(NamedTuple):
    """A step as the file has it. `seq` is 0 where it has no result yet."""

    id: int
    fingerprint: bytes
    args: bytes
    seq: int
    status: int
    payload: bytes
    at: int  # microseconds UTC


class Mismatch(Exception):
    """The code asks for something else than what is recorded under the same scope, name and occurrence."""

    def __init__(self, scope: str, name: str, occurrence: int, recorded: Recorded) -> None:
        super().__init__(scope, name, occurrence)
        self.scope = scope
        self.name = name
        self.occurrence = occurrence
        self.recorded = recorded


class Scope:
    """A branch of a run: the workflow itself ("0") or a task that it spawned ("0.1", "0.2", "0.1.1", ...)."""

    __slots__ = ("_children", "counts", "draws", "path")

    def __init__(self, path: str = "0") -> None:
        self.path = path
        self.counts: dict[str, int] = {}  # step's name -> how often it was asked for in this scope
        self.draws = 0  # of random bytes
        self._children = 0

    def branch(self) -> Scope:
        self._children += 1
        return Scope(f"{self.path}.{self._children}")


class _Stretch:
    """Consecutive ids whose completions go to consecutive places of one target: a fan-out of a million is a few."""

    __slots__ = ("came", "first", "index", "left", "target")

    def __init__(self, first: int, target: Target, index: int) -> None:
        self.first = first
        self.target = target
        self.index = index
        self.came = bytearray(1)
        self.left = 1

    def __lt__(self, other: _Stretch) -> bool:
        return self.first < other.first


class Journal:
    """Pure bookkeeping: it neither sends nor waits."""

    __slots__ = ("_arrived", "_firsts", "_last", "_recorded", "_stretches", "_unasked", "_waits", "is_old", "now")

    def __init__(self, now: int = 0) -> None:
        self._last = now
        self.now = now  # microseconds UTC: when what was delivered last came about
        self.is_old = False  # whether anything was on record when the run began here
        self._recorded: dict[tuple[str, str], dict[int, Recorded]] = {}
        self._unasked: dict[int, tuple[tuple[str, str], int]] = {}  # recorded, without a result, not asked for so far
        self._waits: dict[int, tuple[Target, int]] = {}
        self._stretches: list[_Stretch] = []
        self._firsts: list[int] = []
        self._arrived: list[tuple[int, Target, int, int, bytes, int]] = []  # a heap by number

    def load(self, scope: str, name: str, occurrence: int, recorded: Recorded) -> None:
        """Takes in a step of the run's history."""
        self.is_old = True
        key = (scope, name)
        self._recorded.setdefault(key, {})[occurrence] = recorded
        if not recorded.seq:
            self._unasked[recorded.id] = (key, occurrence)

    def replays(self, scope: str) -> bool:
        """Whether something is on record of a branch that it has not asked for yet; marks of earlier changes aside."""
        return any(known == scope and not name.startswith(PATCHED) for known, name in self._recorded)

    def knows(self, scope: Scope, name: str) -> bool:
        """Whether the next request of this name is on record."""
        return scope.counts.get(name, 0) in self._recorded.get((scope.path, name), ())

    def request(self, scope: Scope, name: str, fingerprint: bytes, target: Target, index: int) -> int:
        """Counts a request. Its id if it is on record, and `target` will hear of it; 0: it is new, see `expect`.

        Raises:
            Mismatch: What is on record has another fingerprint.
        """
        occurrence = scope.counts.get(name, 0)
        scope.counts[name] = occurrence + 1
        if not self._recorded:
            return 0
        recorded = self._pop((scope.path, name), occurrence)
        if recorded is None:
            return 0
        if recorded.fingerprint != fingerprint:
            raise Mismatch(scope.path, name, occurrence, recorded)
        if recorded.seq:
            heappush(self._arrived, (recorded.seq, target, index, recorded.status, recorded.payload, recorded.at))
        else:
            del self._unasked[recorded.id]
            self._waits[recorded.id] = (target, index)
        return recorded.id

    def _pop(self, key: tuple[str, str], occurrence: int) -> Recorded | None:
        rows = self._recorded.get(key)
        if rows is None:
            return None
        recorded = rows.pop(occurrence, None)
        if not rows:
            del self._recorded[key]
        return recorded

    def expect(self, id: int, target: Target, index: int) -> None:
        """A new step has this id, and its completion goes to `target`."""
        self._waits[id] = (target, index)

    def expect_next(self, id: int, target: Target, index: int) -> None:
        """The same for one of many steps that are asked for in a row."""
        last = self._stretches[-1] if self._stretches else None
        if last is not None and last.target is target:
            count = len(last.came)
            if last.first + count == id and last.index + count == index:
                last.came.append(0)
                last.left += 1
                return
        insort(self._stretches, _Stretch(id, target, index))
        insort(self._firsts, id)

    def announce(self, seq: int, target: Target, payload: bytes, at: int) -> None:
        """Something has come that nobody has asked for: it is delivered in its turn."""
        heappush(self._arrived, (seq, target, UNASKED, 0, payload, at))

    def arrive(self, id: int, seq: int, status: int, payload: bytes, at: int) -> None:
        """A completion has come. One that is known already changes nothing."""
        wait = self._waits.pop(id, None)
        if wait is not None:
            heappush(self._arrived, (seq, wait[0], wait[1], status, payload, at))
        elif id in self._unasked:
            key, occurrence = self._unasked.pop(id)
            row = self._recorded[key][occurrence]
            self._recorded[key][occurrence] = row._replace(seq=seq, status=status, payload=payload, at=at)
        else:
            self._arrive_in_stretch(id, seq, status, payload, at)

    def _arrive_in_stretch(self, id: int, seq: int, status: int, payload: bytes, at: int) -> None:
        place = bisect_right(self._firsts, id) - 1
        if place < 0:
            return
        stretch = self._stretches[place]
        offset = id - stretch.first
        if offset >= len(stretch.came) or stretch.came[offset]:
            return
        stretch.came[offset] = 1
        stretch.left -= 1
        heappush(self._arrived, (seq, stretch.target, stretch.index + offset, status, payload, at))
        if not stretch.left:
            del self._stretches[place], self._firsts[place]

    def deliver(self) -> bool:
        """Delivers what has the lowest number of all that was asked for and has come; False if there is nothing."""
        if not self._arrived:
            return False
        _, target, index, status, payload, at = heappop(self._arrived)
        self._last = at
        self.now = max(self.now, at)
        target.take(index, status, payload)
        return True

    @property
    def size(self) -> int:
        """How much is on record that was not asked for."""
        return sum(map(len, self._recorded.values()))

    @property
    def outstanding(self) -> bool:
        """Whether anything was asked for that is not delivered."""
        return bool(self._arrived or self._waits or self._stretches)

    @property
    def under_way(self) -> bool:
        """Whether anything is outstanding that the code has not let go of."""
        return bool(self._stretches) or not all(getattr(target, "let_go", False) for target in self._targets())

    @property
    def dropping(self) -> bool:
        """Whether a step is outstanding that was cancelled."""
        return any(getattr(target, "dropped", False) for target in self._targets())

    def _targets(self) -> Iterator[Target]:
        """Those of single requests that are outstanding."""
        yield from (target for target, _ in self._waits.values())
        yield from (entry[1] for entry in self._arrived if entry[2] != UNASKED)

    def restart(self) -> None:
        """Forgets what was asked for; what nobody has asked for (a cancel) is still delivered in its turn.

        The run's time is that of the checkpoint, from which a replay begins, also where a clock was set back.
        """
        self.now = self._last
        self._waits.clear()
        self._stretches.clear()
        self._firsts.clear()
        self._arrived = [entry for entry in self._arrived if entry[2] == UNASKED]
        heapify(self._arrived)

    def awaits(self, id: int) -> bool:
        """Whether a single step was asked for and has no result."""
        return id in self._waits

    def open_ids(self) -> list[int]:
        """Steps that were asked for and have no result."""
        ids = list(self._waits)
        for stretch in self._stretches:
            ids += [stretch.first + offset for offset, came in enumerate(stretch.came) if not came]
        return ids

    def left_over(self) -> Iterable[tuple[str, str, int, Recorded]]:
        """Recorded steps that were not asked for: (scope, name, occurrence, what is on record)."""
        for (scope, name), rows in self._recorded.items():
            for occurrence, recorded in rows.items():
                yield scope, name, occurrence, recorded
