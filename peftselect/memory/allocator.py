"""A model of PyTorch's native CUDA caching allocator: replay a log of allocations, learn what it would reserve.

Follows ``c10/cuda/CUDACachingAllocator.cpp`` under default settings: sizes rounded to 512 B; requests up to 1 MiB
served from 2 MiB segments, up to 10 MiB from 20 MiB segments, larger ones from segments rounded to 2 MiB; best fit,
splitting and merging inside a segment; on failure the cached segments are given back and the request tried once more.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIB = 2**20
ROUND_BYTES = 512
SMALL_REQUEST = MIB
SMALL_SEGMENT = 2 * MIB
MEDIUM_REQUEST = 10 * MIB
MEDIUM_SEGMENT = 20 * MIB
SEGMENT_ROUND = 2 * MIB

#: (kind, key, bytes): "alloc" and "free" carry a storage's key, "mark" a label, "empty_cache" nothing
Event = tuple[Literal["alloc", "free", "empty_cache", "mark"], object, int]


class OutOfMemoryError(Exception):
    """The replay needed more than the capacity it was given."""


class _Block:
    """A stretch of a segment: free, or lent to one storage."""

    __slots__ = ("address", "free", "next", "pool", "previous", "size")

    def __init__(self, address: int, size: int, pool: int) -> None:
        self.address, self.size, self.pool = address, size, pool
        self.previous: _Block | None = None
        self.next: _Block | None = None
        self.free = True


@dataclass
class CachingAllocator:
    """The allocator's state. All figures are bytes; ``capacity`` None never runs out."""

    capacity: int | None = None
    allocated: int = 0
    reserved: int = 0
    peak_allocated: int = 0
    peak_reserved: int = 0
    retries: int = 0
    _lent: dict[object, _Block] = field(default_factory=dict)
    #: free blocks of the small and the large pool, sorted by (size, address)
    _free: tuple[list[tuple[int, int]], list[tuple[int, int]]] = field(default_factory=lambda: ([], []))
    _at: dict[int, _Block] = field(default_factory=dict)
    _next_address: int = 0

    def allocate(self, key: object, nbytes: int) -> None:
        """Serve a request; OutOfMemoryError when the capacity does not allow it even with an empty cache."""
        size = max(ROUND_BYTES, -(-nbytes // ROUND_BYTES) * ROUND_BYTES)
        pool = 0 if size <= SMALL_REQUEST else 1
        block = self._best_fit(size, pool) or self._new_segment(size, pool)
        remainder = block.size - size
        if remainder >= ROUND_BYTES if pool == 0 else remainder > SMALL_REQUEST:
            self._split(block, size)
        block.free = False
        self._lent[key] = block
        self.allocated += block.size
        self.peak_allocated = max(self.peak_allocated, self.allocated)

    def release(self, key: object) -> None:
        """Return a storage's block and merge it with its free neighbours."""
        block = self._lent.pop(key, None)
        if block is None:
            return
        self.allocated -= block.size
        block.free = True
        if (before := block.previous) is not None and before.free:
            self._forget(before)
            block = self._merge(before, block)
        if (after := block.next) is not None and after.free:
            self._forget(after)
            block = self._merge(block, after)
        self._remember(block)

    def empty_cache(self) -> None:
        """Give every wholly free segment back to the device."""
        for pool in self._free:
            whole = [entry for entry in pool if self._is_whole(self._at[entry[1]])]
            for entry in whole:
                self.reserved -= entry[0]
                del self._at[entry[1]]
            pool[:] = [entry for entry in pool if entry[1] in self._at]

    def _best_fit(self, size: int, pool: int) -> _Block | None:
        free = self._free[pool]
        index = bisect_left(free, (size, -1))
        return self._at.pop(free.pop(index)[1]) if index < len(free) else None

    def _new_segment(self, size: int, pool: int) -> _Block:
        if pool == 0:
            segment = SMALL_SEGMENT
        elif size < MEDIUM_REQUEST:
            segment = MEDIUM_SEGMENT
        else:
            segment = -(-size // SEGMENT_ROUND) * SEGMENT_ROUND
        if self.capacity is not None and self.reserved + segment > self.capacity:
            self.retries += 1
            self.empty_cache()
            if self.reserved + segment > self.capacity:
                raise OutOfMemoryError(f"{segment} bytes on top of {self.reserved}")
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        block = _Block(self._next_address, segment, pool)
        self._next_address += segment
        return block

    def _split(self, block: _Block, size: int) -> None:
        rest = _Block(block.address + size, block.size - size, block.pool)
        rest.previous, rest.next = block, block.next
        if block.next:
            block.next.previous = rest
        block.next, block.size = rest, size
        self._remember(rest)

    @staticmethod
    def _merge(left: _Block, right: _Block) -> _Block:
        left.size += right.size
        left.next = right.next
        if right.next:
            right.next.previous = left
        return left

    def _remember(self, block: _Block) -> None:
        insort(self._free[block.pool], (block.size, block.address))
        self._at[block.address] = block

    def _forget(self, block: _Block) -> None:
        free = self._free[block.pool]
        del free[bisect_left(free, (block.size, block.address))]
        del self._at[block.address]

    @staticmethod
    def _is_whole(block: _Block) -> bool:
        return block.previous is None and block.next is None


@dataclass(frozen=True)
class Replay:
    """What a log came to, in bytes; ``marks`` hold (allocated, reserved) at each mark."""

    peak_allocated: int
    peak_reserved: int
    retries: int
    marks: dict[str, tuple[int, int]]


def replay(events: Iterable[Event], capacity: int | None = None, workspace_bytes: int = 0) -> Replay:
    """Replay a log; ``workspace_bytes`` stands for what cuBLAS keeps for itself from the first product on.

    Raises OutOfMemoryError when ``capacity`` is too small.
    """
    allocator = CachingAllocator(capacity)
    marks: dict[str, tuple[int, int]] = {}
    if workspace_bytes:
        allocator.allocate("workspace", workspace_bytes)
    for kind, key, nbytes in events:
        if kind == "alloc":
            allocator.allocate(key, nbytes)
        elif kind == "free":
            allocator.release(key)
        elif kind == "mark":
            marks[str(key)] = (allocator.allocated, allocator.reserved)
        else:
            allocator.empty_cache()
    return Replay(allocator.peak_allocated, allocator.peak_reserved, allocator.retries, marks)


def smallest_capacity(events: Sequence[Event], workspace_bytes: int = 0) -> int:
    """The smallest capacity in bytes, to 2 MiB, under which the log survives (by bisection)."""
    uncapped = replay(events, None, workspace_bytes)
    low, high = uncapped.peak_allocated // SEGMENT_ROUND, -(-uncapped.peak_reserved // SEGMENT_ROUND)
    while low < high:
        middle = (low + high) // 2
        try:
            replay(events, middle * SEGMENT_ROUND, workspace_bytes)
            high = middle
        except OutOfMemoryError:
            low = middle + 1
    return high * SEGMENT_ROUND
