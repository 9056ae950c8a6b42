"""What the convolutions cost by which sound becomes positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftselect.memory.regime import Regime
    from peftselect.shape import ModelShape


def _sizes(shape: ModelShape, batch: int, seconds: float) -> list[int]:
    """Numbers in the output of each convolution; none where the model reads text."""
    if shape.audio is None:
        return []
    lengths = shape.audio.lengths(seconds)
    return [batch * length * item[0] for length, item in zip(lengths, shape.audio.convolutions, strict=True)]


def _norm_width(regime: Regime) -> int:
    """Bytes of what a norm reads and writes: autocast takes it in float32, on a copy."""
    return 4 if regime.autocast else regime.norm


def passing_bytes(shape: ModelShape, batch: int, seconds: float, regime: Regime) -> int:
    """Bytes alive while the largest convolution runs and nothing is kept; 0 for models that read text.

    A norm or an activation reads what the convolution wrote; autocast adds the norm's copy to the half-wide original.
    """
    if shape.audio is None:
        return 0
    copied = regime.autocast and shape.audio.normed
    return max(_sizes(shape, batch, seconds)) * (2 + 2 * _norm_width(regime) if copied else 2 * regime.inner)


def kept_bytes(shape: ModelShape, batch: int, seconds: float, regime: Regime) -> int:
    """Bytes that autograd keeps of the convolutions where they are trained.

    Each keeps what its norm and its activation read, and the next one what it reads itself.
    """
    normed = shape.audio.normed if shape.audio else 0
    return sum(
        size * (regime.inner + (2 * _norm_width(regime) if number < normed else regime.inner))
        for number, size in enumerate(_sizes(shape, batch, seconds))
    )
