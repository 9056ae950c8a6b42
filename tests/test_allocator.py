"""The allocator's model, against what the real one is known to do."""

from __future__ import annotations

import random

import pytest

from peftselect.memory.allocator import MIB, CachingAllocator, OutOfMemoryError, replay, smallest_capacity


@pytest.mark.parametrize(
    ("request_bytes", "reserved"),
    [(1, 2 * MIB), (MIB, 2 * MIB), (MIB + 1, 20 * MIB), (10 * MIB - 512, 20 * MIB), (10 * MIB, 10 * MIB),
     (11 * MIB, 12 * MIB), (100 * MIB + 1, 102 * MIB)],
)  # fmt: skip
def test_segments_have_the_sizes_of_the_real_allocator(request_bytes: int, reserved: int) -> None:
    assert replay([("alloc", 0, request_bytes)]).peak_reserved == reserved


def test_sizes_are_rounded_to_512_bytes() -> None:
    assert replay([("alloc", 0, 1), ("alloc", 1, 513)]).peak_allocated == 512 + 1024


def test_a_freed_block_is_used_again_and_neighbours_merge() -> None:
    allocator = CachingAllocator()
    allocator.run(("alloc", key, 5 * MIB) for key in range(4))
    assert allocator.reserved == 20 * MIB
    allocator.run([("free", 1, 0), ("free", 2, 0), ("alloc", "both", 9 * MIB)])
    assert allocator.reserved == 20 * MIB


def test_blocks_of_two_segments_never_merge() -> None:
    allocator = CachingAllocator()
    allocator.run(
        [("alloc", "left", 12 * MIB), ("alloc", "right", 12 * MIB), ("free", "left", 0), ("free", "right", 0)]
    )
    allocator.run([("alloc", "both", 24 * MIB)])
    assert allocator.reserved == 48 * MIB


def test_best_fit_takes_the_smallest_block_that_serves() -> None:
    allocator = CachingAllocator()
    allocator.run([("alloc", "big", 40 * MIB), ("alloc", "small", 12 * MIB), ("free", "big", 0), ("free", "small", 0)])
    allocator.run([("alloc", "new", 12 * MIB), ("alloc", "newer", 40 * MIB)])
    assert allocator.reserved == 52 * MIB


def test_empty_cache_gives_back_whole_segments_only() -> None:
    allocator = CachingAllocator()
    allocator.run(
        [("alloc", "kept", 5 * MIB), ("alloc", "gone", 30 * MIB), ("free", "gone", 0), ("empty_cache", "", 0)]
    )
    assert (allocator.reserved, allocator.peak_reserved) == (20 * MIB, 50 * MIB)
    allocator.run([("free", "kept", 0), ("free", "kept", 0), ("empty_cache", "", 0)])
    assert (allocator.allocated, allocator.reserved) == (0, 0)


def test_a_full_device_first_empties_the_cache_and_then_fails() -> None:
    events = [("alloc", 0, 30 * MIB), ("free", 0, 0), ("alloc", 1, 40 * MIB)]
    assert replay(events, capacity=40 * MIB).retries == 1
    with pytest.raises(OutOfMemoryError):
        replay(events, capacity=38 * MIB)


def test_the_smallest_capacity_survives_and_two_mebibytes_less_does_not() -> None:
    rng = random.Random(0)
    events, live = [], []
    for key in range(600):
        events.append(("alloc", key, rng.choice([3_000, 700_000, 4 * MIB, 17 * MIB, 33 * MIB])))
        live.append(key)
        if len(live) > 12:
            events.append(("free", live.pop(rng.randrange(len(live))), 0))
    needed = smallest_capacity(events)
    whole = replay(events)
    assert whole.peak_allocated <= needed <= whole.peak_reserved
    assert replay(events, capacity=needed).peak_reserved <= needed
    with pytest.raises(OutOfMemoryError):
        replay(events, capacity=needed - 2 * MIB)


def test_marks_tell_what_is_held() -> None:
    done = replay([("alloc", 0, 3 * MIB), ("mark", "forward", 0), ("free", 0, 0), ("mark", "end", 0)])
    assert done.marks == {"forward": (3 * MIB, 20 * MIB), "end": (0, 20 * MIB)}
