"""What is on the platter: what a power cut leaves of a disk's files, as far as syncs have not settled it.

Between two syncs a disk may write in any order, and stop in the middle of a write. After a failed sync the kernel takes
what it could not write for written: a later sync does not bring it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from itertools import chain, combinations
from typing import NamedTuple

from tests.power.disk import (
    BEGIN_SYNC,
    CREATE,
    DELETE,
    END_SYNC,
    FAILED_SYNC,
    TRUNCATE,
    WRITE,
    Disk,
    Event,
)

SECTOR = 512
FEW = 4  # unsynced writes of which all subsets are tried
_LOG_HEAD, _FRAME_HEAD = 32, 24

Image = dict[str, bytes]


class Pending(NamedTuple):
    """A write or a truncation that no sync covers."""

    number: int
    file: int
    kind: int
    at: int
    data: bytes
    lost: bool = False  # the kernel takes it for written, and it may not be


class Platter:
    """Goes through a record, event by event.

    Attributes:
        durable: What each file holds for certain.
        pending: What may be there as well.
        commits: How many commits the log has held so far.
    """

    def __init__(self, disk: Disk) -> None:
        self.named = dict(disk.first)
        self.durable = {number: bytearray(disk.base[name]) for name, number in self.named.items()}
        self.pending: list[Pending] = []
        self.renamed: list[tuple[str, int | None]] = []  # names that came or went, and no sync of the folder since
        self.commits = 0
        self._number = 0
        self._began: dict[int, int] = {}
        self._page = 4096
        self._commit_at = -1

    def apply(self, event: Event) -> None:
        """Goes on by one event."""
        self._number += 1
        if event.kind in (WRITE, TRUNCATE):
            self.pending.append(Pending(self._number, event.file, event.kind, event.at, event.data))
            if event.kind == WRITE and event.name.endswith("-wal"):
                self._watch_log(event)
        elif event.kind == BEGIN_SYNC:
            self._began[event.at] = self._number
        elif event.kind == END_SYNC:
            self._settle(event.file, self._began.pop(event.at))
            self._settle_names(event.folder)
        elif event.kind == FAILED_SYNC:
            self._lose(event.file, self._began.pop(event.at))
        elif event.kind == CREATE:
            self.durable[event.file] = bytearray()
            self.renamed.append((event.name, event.file))
            self._settle_names(event.folder)
        elif event.kind == DELETE:
            self.renamed.append((event.name, None))
            self._settle_names(event.folder)

    def _watch_log(self, event: Event) -> None:
        """Counts commits: a commit is whole when the page of its last frame is written."""
        size = len(event.data)
        if event.at == 0 and size == _LOG_HEAD:
            self._page = int.from_bytes(event.data[8:12], "big")
        elif size == _FRAME_HEAD and (event.at - _LOG_HEAD) % (self._page + _FRAME_HEAD) == 0:
            self._commit_at = event.at + _FRAME_HEAD if any(event.data[4:8]) else -1
        elif event.at == self._commit_at and size == self._page:
            self._commit_at = -1
            self.commits += 1

    def _settle(self, file: int, before: int) -> None:
        rest: list[Pending] = []
        settled: list[Pending] = []
        for item in self.pending:
            covered = item.file == file and item.number < before and not item.lost
            (settled if covered else rest).append(item)
        for item in settled:
            put(self.durable[file], item)
        self.pending = [piece for item in rest for piece in _uncovered(item, settled)] if settled else rest

    def _lose(self, file: int, before: int) -> None:
        """The kernel gives these writes up, and shows them all the same. A file's length it keeps in its journal."""
        self.pending = [
            item._replace(lost=item.lost or (item.file == file and item.kind == WRITE and item.number < before))
            for item in self.pending
        ]

    def _settle_names(self, synced: bool) -> None:
        if synced:
            for name, file in self.renamed:
                self._rename(self.named, name, file)
            self.renamed = []

    @staticmethod
    def _rename(names: dict[str, int], name: str, file: int | None) -> None:
        if file is None:
            names.pop(name, None)
        else:
            names[name] = file

    def image(self, kept: list[Pending], renames: dict[str, int] | None = None) -> Image:
        """The files where just these writes got through, in this order. `renames`: how many changes of each name did."""
        names = dict(self.named)
        seen: dict[str, int] = {}
        for name, file in self.renamed:
            seen[name] = seen.get(name, 0) + 1
            if renames is None or seen[name] <= renames.get(name, 0):
                self._rename(names, name, file)
        content = {file: bytearray(self.durable[file]) for file in names.values()}
        for item in kept:
            if item.file in content:
                put(content[item.file], item)
        return {name: bytes(content[file]) for name, file in names.items()}

    def cached(self) -> Image:
        """The files as the kernel shows them: what a kill leaves."""
        return self.image(self.pending)

    def cuts(self, chance: random.Random, count: int) -> Iterator[Image]:
        """About so many images of a power cut at this moment: all there are where little is unsynced."""
        pending = self.pending
        yield self.image([], {})
        yield self.image(pending)
        if len(pending) <= FEW:
            subsets = chain.from_iterable(combinations(pending, n) for n in range(len(pending) + 1))
            yield from (self.image(list(subset)) for subset in subsets)
        if pending or self.renamed:
            for _ in range(count):
                yield self.image(_chosen(pending, chance), self._renames(chance))

    def _renames(self, chance: random.Random) -> dict[str, int]:
        names = [name for name, _ in self.renamed]
        return {name: chance.randint(0, names.count(name)) for name in dict.fromkeys(names)}


def _chosen(pending: list[Pending], chance: random.Random) -> list[Pending]:
    """Some of the writes, some of them in part, at times out of order."""
    way = chance.randrange(6)
    if way == 0:
        kept = pending[: chance.randint(0, len(pending))]
    elif way == 1:
        kept = pending[chance.randint(0, len(pending)) :]
    else:
        share = chance.choice((0.05, 0.5, 0.8, 0.97))
        kept = [item for item in pending if chance.random() < share]
    if way >= 3 and kept:
        torn = {chance.randrange(len(kept))} if way < 5 else {n for n in range(len(kept)) if chance.random() < 0.5}
        kept = [piece for n, item in enumerate(kept) for piece in (_torn(item, chance) if n in torn else [item])]
    if chance.random() < 0.1:
        chance.shuffle(kept)
    return kept


def _torn(item: Pending, chance: random.Random) -> list[Pending]:
    """What of a write got through: a beginning, some of its sectors, or its length with zeros in it."""
    if item.kind == TRUNCATE or len(item.data) < 2:
        return [item]
    way = chance.randrange(4)
    if way == 0:
        return [item._replace(data=item.data[: chance.randrange(len(item.data))])]
    if way == 1:
        return [item._replace(at=item.at + len(item.data), data=b"")]  # the file was lengthened, and that is all
    first = item.at // SECTOR
    sectors = range(first, (item.at + len(item.data) - 1) // SECTOR + 1)
    pieces: list[Pending] = []
    cut = chance.randint(first, sectors[-1] + 1)
    for sector in sectors:
        if (sector < cut) if way == 2 else chance.random() < 0.5:
            start, end = max(item.at, sector * SECTOR), min(item.at + len(item.data), (sector + 1) * SECTOR)
            pieces.append(item._replace(at=start, data=item.data[start - item.at : end - item.at]))
    return pieces


def put(content: bytearray, item: Pending) -> None:
    """Does a write or a truncation."""
    if item.kind == TRUNCATE:
        if item.at <= len(content):
            del content[item.at :]
        else:
            content.extend(bytes(item.at - len(content)))
        return
    if item.at > len(content):
        content.extend(bytes(item.at - len(content)))
    content[item.at : item.at + len(item.data)] = item.data


def _uncovered(item: Pending, settled: list[Pending]) -> list[Pending]:
    """What is left of a write that was lost, once later ones at its place are settled."""
    pieces = [item]
    for other in settled:
        if other.file != item.file or other.number < item.number:
            continue
        if other.kind == TRUNCATE:
            continue
        start, end = other.at, other.at + len(other.data)
        pieces = [part for piece in pieces for part in _without(piece, start, end)]
    return pieces


def _without(piece: Pending, start: int, end: int) -> list[Pending]:
    at, stop = piece.at, piece.at + len(piece.data)
    if end <= at or start >= stop:
        return [piece]
    head = [piece._replace(data=piece.data[: start - at])] if start > at else []
    tail = [piece._replace(at=end, data=piece.data[end - at :])] if end < stop else []
    return head + tail
