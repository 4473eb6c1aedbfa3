"""Blocks of ids that one connection has: each of them names one thing, once."""

from __future__ import annotations


class Leases:
    """The blocks of one client or host, and what of them is spent.

    Example:
        leases.add(100, 50)
        leases.spend(100, 103)   # True
        leases.spend(103, 103)   # False
    """

    __slots__ = ("_lowest",)

    def __init__(self) -> None:
        self._lowest: dict[int, int] = {}  # end of a block -> the lowest id of it that is not spent

    def add(self, first: int, count: int) -> None:
        """A block has been given out."""
        self._lowest[first + count] = first

    def holds(self, id: int) -> bool:
        """Whether an id is of one of the blocks, and above all that are spent of it."""
        return any(lowest <= id < end for end, lowest in self._lowest.items())

    def spend_all(self, ids: list[int]) -> bool:
        """The same of ids that need not follow one another; some may be spent where not all can be."""
        if ids and ids == list(range(ids[0], ids[0] + len(ids))) and self.spend(ids[0], ids[-1]):
            return True
        return all(self.spend(id, id) for id in ids)

    def spend(self, first: int, last: int) -> bool:
        """Whether these ids are of one block, and above all that were spent of it. Then they are spent too."""
        for end, lowest in self._lowest.items():
            if lowest <= first <= last < end:
                if last + 1 == end:
                    del self._lowest[end]
                else:
                    self._lowest[end] = last + 1
                return True
        return False
