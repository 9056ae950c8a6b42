"""Weights in few bits: codes packed into bytes, the levels that they stand for, and the nearest code of a number."""

from __future__ import annotations

from functools import cache

import torch
from torch.nn import functional


@cache
def fields(bits: int) -> tuple[int, ...]:
    """How a code of ``bits`` is split so that each part fills bytes evenly: its powers of two (3 is 2 and 1)."""
    if not 1 <= bits <= 8:
        raise ValueError(f"a weight takes 1 to 8 bits, not {bits}")
    return tuple(width for width in (8, 4, 2, 1) if bits & width)


def pack(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Codes (uint8, flat, each below ``2**bits``) as bytes, ``bits / 8`` of them a code; int8 as model code expects."""
    parts, low = [], 0
    for width in fields(bits):
        each = 8 // width
        part = (codes >> low) & ((1 << width) - 1)
        low += width
        columns = functional.pad(part, (0, -len(part) % each)).view(-1, each)
        packed = columns[:, 0].clone()
        for place in range(1, each):
            packed |= columns[:, place] << (place * width)
        parts.append(packed)
    return torch.cat(parts).view(torch.int8)


def unpack(packed: torch.Tensor, bits: int, number: int) -> torch.Tensor:
    """The ``number`` codes that were packed (uint8, flat)."""
    held, start, low = packed.view(torch.uint8), 0, 0
    codes: torch.Tensor | None = None
    for width in fields(bits):
        each = 8 // width
        length = -(-number // each)
        part = held[start : start + length]
        start += length
        if each > 1:
            places = torch.arange(0, 8, width, dtype=torch.uint8, device=held.device)
            part = ((part.unsqueeze(1) >> places) & ((1 << width) - 1)).flatten()[:number]
        codes = part if codes is None else codes | (part << low)
        low += width
    assert codes is not None
    return codes


def normal_levels(bits: int) -> torch.Tensor:
    """The ``2**bits`` levels of NormalFloat in [-1, 1], zero among them: evenly spaced quantiles of a normal number.

    Dettmers et al. 2023 (arXiv 2305.14314), section 3, for 4 bits; for others as in Guo et al. 2023 (2311.12023),
    section 2.1.
    """
    half = 2 ** (bits - 1)
    edge = (1 / (2 ** (bits + 1)) + 1 / (2 ** (bits + 1) - 2)) / 2
    below = torch.linspace(edge, 0.5, half, dtype=torch.float64)
    above = torch.linspace(0.5, 1 - edge, half + 1, dtype=torch.float64)[1:]
    levels = torch.special.ndtri(torch.cat([below, above]))
    scaled: torch.Tensor = levels / levels.abs().max()
    return scaled.float()


def nearest(numbers: torch.Tensor, levels: torch.Tensor) -> torch.Tensor:
    """Codes (uint8) of the levels nearest to ``numbers``; ``levels`` ascend."""
    edges = (levels[1:] + levels[:-1]) / 2
    found: torch.Tensor = torch.bucketize(numbers, edges, out_int32=True).to(torch.uint8)
    return found
