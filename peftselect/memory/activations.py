"""What autograd keeps of a forward pass: bytes by arithmetic, block by block.

Each term was read off traces of the real modules on fake tensors (``peftselect.memory.tracing``), in bfloat16 and
float32, frozen and trained, for decoders, encoders and encoder-decoders. ``c`` is the width of an activation in bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from peftselect.method import MemoryTraits
    from peftselect.shape import ModelShape, Stack

#: tensors of the feed-forward width which an activation keeps; the tanh GELU written out in Python keeps four
_ACTIVATION_TENSORS = {"gelu_new": 4, "gelu_fast": 4, "quick_gelu": 2}
#: float32 bytes that a head's loss takes per logit at its peak: logits, log-softmax and gradient
_LOSS_BYTES = 12
#: tensors of the feed-forward width alive at once in the backward pass of one block
_BACKWARD_TENSORS = 3


@dataclass(frozen=True)
class Work:
    """The longest micro-batch, as the model sees it. Lengths are positions, virtual tokens included."""

    batch: int
    encoder_length: int
    decoder_length: int
    prefix: int
    padded: bool = True

    @classmethod
    def of(cls, shape: ModelShape, traits: MemoryTraits, batch: int, length: int, target: int) -> Work:
        """The work of a micro-batch of ``batch`` rows of ``length`` (and ``target``) tokens under a method."""
        longer = length + traits.virtual_tokens
        if shape.architecture == "encoder-decoder":
            # sequence classification feeds the input to both stacks
            return cls(batch, longer, target or length, traits.prefix_positions)
        encoder = shape.architecture == "encoder"
        return cls(batch, longer if encoder else 0, 0 if encoder else longer, traits.prefix_positions)

    def length(self, stack: Stack) -> int:
        """Positions in a stack."""
        return self.encoder_length if stack == "encoder" else self.decoder_length

    def tokens(self, stack: Stack) -> int:
        """Positions in a stack, over the whole micro-batch."""
        return self.batch * self.length(stack)


def block_bytes(
    shape: ModelShape, stack: Stack, work: Work, c: int, *, trains_weights: bool, keeps_cache: bool = False
) -> float:
    """Bytes kept by one block of a stack."""
    cross = stack == "decoder" and shape.architecture == "encoder-decoder"
    per_token = _norms(shape, c, cross, trains_weights) + _feed_forward(shape, c, trains_weights)
    per_token += _dropouts(shape, cross)
    total = work.tokens(stack) * per_token
    attentions = [work.length(stack)] + ([work.encoder_length] if cross else [])
    for index, key_length in enumerate(attentions):
        total += _attention(shape, work, stack, key_length, c, biased=shape.relative_attention and index == 0)
        if trains_weights:
            # the input of query (and key and value), and of the encoder's output for the cross-attention
            total += work.tokens(stack) * c * shape.hidden_size
    if keeps_cache:
        total += work.tokens(stack) * 2 * c * shape.kv_size
    return total


def _norms(shape: ModelShape, c: int, cross: bool, trains_weights: bool) -> float:
    count = shape.norms_per_block + (1 if cross else 0)
    if not shape.rms_norm:
        kept = float(c)
    elif shape.relative_attention and c < 4:
        kept = 4.0 + c  # T5 multiplies the 16-bit states, and squares a float32 copy
    else:
        kept = 4.0
    normalised = c if trains_weights and shape.rms_norm else 0
    return count * shape.hidden_size * (kept + normalised)


def _feed_forward(shape: ModelShape, c: int, trains_weights: bool) -> float:
    tensors = _ACTIVATION_TENSORS.get(shape.activation, 1) + (2 if shape.gated_ffn else 0)
    kept = tensors * c * shape.intermediate_size
    if trains_weights:
        kept += c * shape.hidden_size + c * shape.intermediate_size
    return kept


def _dropouts(shape: ModelShape, cross: bool) -> float:
    """A byte for each element that dropout has looked at; T5 also drops inside the feed-forward part."""
    if not shape.dropout:
        return 0.0
    inside = shape.intermediate_size if shape.relative_attention else 0
    return shape.hidden_size * (3 if cross else 2) + inside


def _attention(shape: ModelShape, work: Work, stack: Stack, key_length: int, c: int, *, biased: bool) -> float:
    """Query, key, value, output and the log-sum-exp of scaled dot-product attention, and its bias where one is built.

    Grouped keys and values are repeated to the heads of the query before the kernel.
    """
    width = shape.num_heads * shape.head_dim
    keys = key_length + work.prefix
    kept = work.tokens(stack) * (2 * c * width + 4 * shape.num_heads) + work.batch * keys * 2 * c * width
    if biased:
        kept += work.tokens(stack) * c * shape.num_heads * keys
    elif work.padded:
        kept += work.tokens(stack) * c * keys
    return kept


def head_bytes(shape: ModelShape, work: Work, c: int) -> int:
    """Logits and loss at their peak: the logits, their float32 log-softmax and its gradient."""
    if shape.head.kind in ("causal_lm", "seq2seq_lm"):
        return round(work.tokens("decoder") * shape.head.width * _LOSS_BYTES)
    stack: Stack = "encoder" if shape.architecture == "encoder" else "decoder"
    spread = shape.head.kind in ("token_classification", "question_answering")
    return round((work.tokens(stack) if spread else work.batch) * shape.head.width * _LOSS_BYTES)


def backward_bytes(shape: ModelShape, work: Work, c: int) -> int:
    """Temporaries in the backward pass of one block, at its feed-forward part."""
    tokens = max(work.tokens("encoder"), work.tokens("decoder"))
    return round(tokens * c * (_BACKWARD_TENSORS * shape.intermediate_size + 2 * shape.hidden_size))


def kept_bytes(
    shape: ModelShape,
    traits: MemoryTraits,
    work: Work,
    c: int,
    *,
    checkpointing: bool = False,
    keeps_cache: bool = False,
) -> int:
    """Bytes that autograd keeps of a whole forward pass, the head's logits apart."""
    if traits.backward_reaches == "top":
        return round(sum(_passing(shape, work, c)))
    total = 0.0
    stacks: tuple[tuple[Stack, int, float], ...] = (
        ("encoder", shape.encoder_layers, traits.kept_bytes_per_token[0]),
        ("decoder", shape.decoder_layers, traits.kept_bytes_per_token[1]),
    )
    largest = 0.0
    for stack, layers, of_method in stacks:
        if not layers:
            continue
        block = block_bytes(shape, stack, work, c, trains_weights=traits.trains_base_weights, keeps_cache=keeps_cache)
        method = work.tokens(stack) * of_method
        if checkpointing:
            # each block keeps its input; one at a time is run again in full
            total += layers * work.tokens(stack) * c * shape.hidden_size
            largest = max(largest, block + method / layers)
        else:
            total += layers * block + method
        # the last norm, and the embeddings on their way in
        total += work.tokens(stack) * shape.hidden_size * (4 + c)
    return round(total + largest)


def _passing(shape: ModelShape, work: Work, c: int) -> list[float]:
    """What is alive while one block runs forward and nothing is kept."""
    width = 2 * shape.intermediate_size + 6 * shape.hidden_size
    return [max(work.tokens("encoder"), work.tokens("decoder")) * c * width]
