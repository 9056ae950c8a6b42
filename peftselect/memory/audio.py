"""What the convolutions cost by which sound becomes positions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftselect.memory.regime import Regime
    from peftselect.shape import ModelShape

#: tensors of a convolution's output that are alive at once: itself, the norm's, the activation's
_PASSING = 3
#: those that autograd keeps where the convolutions are trained: what the activation and the next layer read
_KEPT = 2


def _largest_and_all(shape: ModelShape, batch: int, seconds: float) -> tuple[int, int]:
    """Numbers in the largest convolution output, and in all of them."""
    if shape.audio is None:
        return 0, 0
    lengths = shape.audio.lengths(seconds)
    sizes = [batch * length * item[0] for length, item in zip(lengths, shape.audio.convolutions, strict=True)]
    return max(sizes), sum(sizes)


def passing_bytes(shape: ModelShape, batch: int, seconds: float, regime: Regime) -> int:
    """Bytes alive while the largest convolution runs and nothing is kept; 0 for models that read text."""
    return _PASSING * _largest_and_all(shape, batch, seconds)[0] * regime.inner


def kept_bytes(shape: ModelShape, batch: int, seconds: float, regime: Regime) -> int:
    """Bytes that autograd keeps of the convolutions where they are trained."""
    return _KEPT * _largest_and_all(shape, batch, seconds)[1] * regime.inner
