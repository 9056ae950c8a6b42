"""A model of PyTorch's native CUDA caching allocator: replay a log of allocations, learn what it would reserve.

Follows ``c10/cuda/CUDACachingAllocator.cpp`` under default settings: sizes rounded to 512 B; requests up to 1 MiB
served from 2 MiB segments, up to 10 MiB from 20 MiB segments, larger ones from segments rounded to 2 MiB; best fit,
splitting and merging inside a segment; on failure the cached segments are given back and the request tried once more.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MIB = 2**20
ROUND_BYTES = 512
SMALL_REQUEST = MIB
SMALL_SEGMENT = 2 * MIB
MEDIUM_REQUEST = 10 * MIB
MEDIUM_SEGMENT = 20 * MIB
SEGMENT_ROUND = 2 * MIB
#: addresses stay far below this power of two, though those of segments that were given back are not used again
ADDRESS_BITS = 56
_NOTHING = (0, 0)
_ADDRESSES = (1 << ADDRESS_BITS) - 1

#: (kind, key, bytes): "alloc" and "free" carry a storage's key, "mark" a label, "empty_cache" nothing
Event = tuple[Literal["alloc", "free", "empty_cache", "mark"], object, int]


class OutOfMemoryError(Exception):
    """The replay needed more than the capacity it was given."""


class _Pool(NamedTuple):
    """The free blocks of one pool: in order of (size, address), as one number each, and by where they begin and end."""

    #: what must be left of a block for it to be split
    least_rest: int
    order: list[int]
    #: sizes by first address, first addresses by the address behind the block
    beginning: dict[int, int]
    ending: dict[int, int]

    def add(self, address: int, size: int) -> None:
        """Note a free block."""
        insort(self.order, size << ADDRESS_BITS | address)
        self.beginning[address] = size
        self.ending[address + size] = address

    def remove(self, address: int, size: int) -> None:
        """Forget a free block."""
        del self.beginning[address], self.ending[address + size]
        del self.order[bisect_left(self.order, size << ADDRESS_BITS | address)]


class CachingAllocator:
    """The allocator's state. All figures are bytes; ``capacity`` None never runs out."""

    def __init__(self, capacity: int | None = None) -> None:
        self.capacity = capacity
        self.allocated = self.reserved = self.peak_allocated = self.peak_reserved = self.retries = 0
        #: (allocated, reserved) at each mark
        self.marks: dict[str, tuple[int, int]] = {}
        #: address and size of what each storage has
        self._lent: dict[object, tuple[int, int]] = {}
        self._small, self._large = _Pool(ROUND_BYTES, [], {}, {}), _Pool(SMALL_REQUEST + 1, [], {}, {})
        self._segments: dict[int, int] = {}
        self._next_address = 0

    def run(self, events: Iterable[Event]) -> None:
        """Serve a log; OutOfMemoryError when the capacity does not allow a request even with an empty cache.

        The smallest free block that serves is lent, of several the one at the lowest address. All is in one loop: logs
        have hundreds of thousands of events, and are replayed a dozen times to find a capacity.
        """
        small, large, lent = (*self._small,), (*self._large,), self._lent  # plain tuples are faster to unpack
        allocated, peak = self.allocated, self.peak_allocated
        for kind, key, nbytes in events:
            if kind == "alloc":
                size = (nbytes + ROUND_BYTES - 1) & -ROUND_BYTES or ROUND_BYTES
                least_rest, order, beginning, ending = small if size <= SMALL_REQUEST else large
                index = bisect_left(order, size << ADDRESS_BITS)
                if index == len(order):
                    self._add_segment(size)
                    index = bisect_left(order, size << ADDRESS_BITS)
                place = order.pop(index)
                address, found = place & _ADDRESSES, place >> ADDRESS_BITS
                del beginning[address]
                if found - size >= least_rest:
                    rest = address + size
                    beginning[rest], ending[address + found] = found - size, rest
                    insort(order, (found - size) << ADDRESS_BITS | rest, 0, index)
                else:
                    del ending[address + found]
                    size = found
                lent[key] = address, size
                allocated += size
                if allocated > peak:
                    peak = allocated
            elif kind == "free":
                address, size = lent.pop(key, _NOTHING)
                if not size:
                    continue
                allocated -= size
                # sizes tell the pools apart: what the large one lends whole stays above a small request
                _, order, beginning, ending = small if size <= SMALL_REQUEST else large
                if more := beginning.pop(address + size, 0):
                    del order[bisect_left(order, more << ADDRESS_BITS | address + size)]
                    size += more
                if (before := ending.pop(address, None)) is not None:
                    more = address - before
                    del order[bisect_left(order, more << ADDRESS_BITS | before)]
                    address = before
                    size += more
                beginning[address] = size
                ending[address + size] = address
                insort(order, size << ADDRESS_BITS | address)
            elif kind == "empty_cache":
                self.empty_cache()
            elif kind == "mark":
                self.marks[str(key)] = allocated, self.reserved
        self.allocated, self.peak_allocated = allocated, peak

    def empty_cache(self) -> None:
        """Give every wholly free segment back to the device."""
        for pool in (self._small, self._large):
            for address, size in list(pool.beginning.items()):
                if self._segments.get(address) == size:
                    pool.remove(address, size)
                    del self._segments[address]
                    self.reserved -= size

    def _add_segment(self, size: int) -> None:
        """A segment that serves a request, all of it free."""
        pool, segment = self._large, -(-size // SEGMENT_ROUND) * SEGMENT_ROUND
        if size <= SMALL_REQUEST:
            pool, segment = self._small, SMALL_SEGMENT
        elif size < MEDIUM_REQUEST:
            segment = MEDIUM_SEGMENT
        if self.capacity is not None and self.reserved + segment > self.capacity:
            self.retries += 1
            self.empty_cache()
            if self.reserved + segment > self.capacity:
                raise OutOfMemoryError(f"{segment} bytes on top of {self.reserved}")
        self.reserved += segment
        self.peak_reserved = max(self.peak_reserved, self.reserved)
        self._segments[self._next_address] = segment
        pool.add(self._next_address, segment)
        self._next_address += segment + ROUND_BYTES  # a gap, so that blocks of two segments never touch


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
    if workspace_bytes:
        allocator.run([("alloc", "workspace", workspace_bytes)])
    allocator.run(events)
    return Replay(allocator.peak_allocated, allocator.peak_reserved, allocator.retries, allocator.marks)


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
