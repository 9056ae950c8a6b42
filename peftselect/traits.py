"""What a method does to the memory of a training step, as its memory hook tells the closed form."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class MemoryTraits:
    """What a method does to the memory of a training step, for the closed form.

    ``kept_bytes_per_token``: bytes that its own modules make autograd keep, summed over the model, per token of the
    stack they sit in, as (encoder, decoder); ``kept_under_autocast``: the same where the step runs under autocast over
    float32 activations (a quantised base), None where that makes no difference. ``virtual_tokens``: positions put
    before every input sequence (of the encoder in an encoder-decoder). ``prefix_positions``: key/value positions put
    before every attention: of the last stack alone, and taking positions, as peft does it; of both stacks and between
    them, taking none, where ``prefix_everywhere``.
    ``backward_reaches``: how far the backward pass goes into the frozen base: "input" (the default), "decoder" (an
    encoder before the decoder keeps nothing), "top" (only the head: no activation of the body is kept), "nothing" (no
    backward pass: no gradients, no states of an optimizer).
    ``block_tokens``: positions put before the input of every block and taken off behind it.
    ``quiet_blocks``: lowest blocks of each stack, as (encoder, decoder), which no gradient enters.
    ``reaches_front``: whether the convolutions over sound are trained in part, so that their activations are kept.
    ``reversible``: whether blocks are computed again from their outputs, so that one block at a time keeps anything.
    ``trains_base_weights``: whether linear inputs of the base are kept because its own weights get gradients (full
    fine-tuning). ``changes_base_weights``: whether they are kept because a change of these weights is trained beside
    the frozen base, whose width stays; ``passing_bytes``: what passes while the gradient of the largest weight is made.
    ``rounds_weights``: whether a trained base computes with rounded copies of its linear layers' weights.
    ``packed_weights``: weights of the base that the method itself holds in few bits, ``packed_bytes`` what they take;
    ``unpacking_bytes``: what passes while the largest of them is unpacked for a product, ``packing_bytes`` while it is
    packed, beside the base as it was loaded.
    ``kept_bytes_per_step``: bytes that its own modules make autograd keep whatever the batch is: updates as large as
    the weights they are added to, above all. ``held_bytes``: what it adds to the model without training it.
    """

    kept_bytes_per_token: tuple[float, float] = (0.0, 0.0)
    kept_under_autocast: tuple[float, float] | None = None
    virtual_tokens: int = 0
    prefix_positions: int = 0
    prefix_everywhere: bool = False
    backward_reaches: Literal["input", "decoder", "top", "nothing"] = "input"
    block_tokens: int = 0
    quiet_blocks: tuple[int, int] = (0, 0)
    reaches_front: bool = False
    reversible: bool = False
    trains_base_weights: bool = False
    rounds_weights: bool = False
    packed_weights: int = 0
    packed_bytes: int = 0
    unpacking_bytes: int = 0
    packing_bytes: int = 0
    kept_bytes_per_step: float = 0.0
    held_bytes: float = 0.0
    changes_base_weights: bool = False
    passing_bytes: float = 0.0

    @property
    def keeps_layer_inputs(self) -> bool:
        """Whether what linear layers of the base read is kept for gradients of their weights."""
        return self.trains_base_weights or self.changes_base_weights
