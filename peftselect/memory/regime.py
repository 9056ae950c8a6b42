"""In which widths a training step computes: what follows from precision, quantisation and the kind of method."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftselect.method import MemoryTraits, Recipe


@dataclass(frozen=True)
class Regime:
    """Bytes of an element in each place.

    ``attention``: queries, keys, values and attention's output; ``inner``: inside the feed-forward network; ``stream``:
    between the sub-layers; ``norm``: what a LayerNorm keeps of its input. Under ``autocast`` every linear layer makes a
    16-bit copy of a float32 input for itself, and powers are taken in float32. ``keeps_inputs``: frozen linear layers
    keep what they read (bitsandbytes' 8-bit product).
    """

    attention: int
    inner: int
    stream: int
    norm: int
    autocast: bool = False
    keeps_inputs: bool = False


SINGLE = Regime(attention=4, inner=4, stream=4, norm=4)
HALF = Regime(attention=2, inner=2, stream=2, norm=2)
#: float16 is always run under autocast, for its loss scaling: LayerNorms then compute in float32
HALF_AUTOCAST = Regime(attention=2, inner=2, stream=2, norm=4, autocast=True)
#: float32 master weights, computed in 16 bits
MIXED = Regime(attention=2, inner=2, stream=4, norm=4, autocast=True)
#: bitsandbytes layers give back the type they take, float32 after ``prepare_model_for_kbit_training`` (4 bits seen on
#: real modules; 8 bits read in its CUDA path)
QUANTIZED = Regime(attention=2, inner=4, stream=4, norm=4, autocast=True)
EIGHT_BIT = replace(QUANTIZED, keeps_inputs=True)


def regime_of(recipe: Recipe, traits: MemoryTraits) -> Regime:
    """The widths of this recipe under a method with these traits."""
    eight_bit = recipe.quantization == "int8"
    if recipe.precision == "fp32":
        return replace(SINGLE, keeps_inputs=eight_bit)
    if recipe.quantization is not None:
        return EIGHT_BIT if eight_bit else QUANTIZED
    if traits.backward_reaches == "nothing":
        return HALF_AUTOCAST
    if recipe.precision == "pure_bf16":
        return HALF
    if traits.trains_base_weights:
        return MIXED
    # biases trained in float32 inside layers of bfloat16 need autocast
    inside = traits.reaches_front and not traits.changes_base_weights
    return HALF if recipe.precision == "bf16" and not inside else HALF_AUTOCAST
