"""What autograd keeps of a forward pass: bytes by arithmetic, block by block.

Each term was read off traces of the real modules on fake tensors (``peftselect.memory.tracing``), in bfloat16 and
float32, frozen and trained, for decoders, encoders and encoder-decoders, and is held against what autograd keeps of
real modules of every architecture (tests/test_kept_activations.py).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from peftselect.memory.attention import attention_bytes, habits, shared_bytes
from peftselect.memory.regime import EIGHT_BIT, HALF, QUANTIZED
from peftselect.memory.states import stays_float
from peftselect.method import LANGUAGE_MODEL_HEADS

if TYPE_CHECKING:
    from peftselect.memory.regime import Regime
    from peftselect.method import MemoryTraits
    from peftselect.shape import ModelShape, Stack

#: tensors of the feed-forward width which an activation keeps; the tanh GELU written out in Python keeps four, of which
#: a third power makes three float32 under autocast, and its result too
_THIRD_POWER = "gelu_new"
_ACTIVATION_TENSORS = {"gelu_new": 4, "gelu_fast": 4, "quick_gelu": 2}
#: tensors as large as the logits that the loss holds at its peak
_LOSS_TENSORS = 3
#: both streams of a reversible model, in 64 bits; and what comes beside them while a block is run backwards
_STREAM_BYTES, _REVERSAL_BYTES = 2 * 8, 5 * 8
#: tensors of the feed-forward width alive at once in the backward pass of one block, a gated one and a plain one
_BACKWARD_TENSORS = {True: 3, False: 2}


@dataclass(frozen=True)
class Work:
    """The longest micro-batch, as the model sees it. Lengths are positions, virtual tokens included."""

    batch: int
    encoder_length: int
    decoder_length: int
    prefix: int
    padded: bool = True
    prefix_everywhere: bool = False

    @classmethod
    def of(cls, shape: ModelShape, traits: MemoryTraits, batch: int, length: int, target: int) -> Work:
        """The work of a micro-batch of ``batch`` rows of ``length`` (and ``target``) tokens under a method."""
        padded = shape.audio is None or shape.audio.masked
        longer = shape.positions(length) + traits.virtual_tokens + traits.block_tokens
        if shape.architecture == "encoder-decoder":
            # sequence classification feeds the input to both stacks
            return cls(batch, longer, target or length, traits.prefix_positions, padded, traits.prefix_everywhere)
        if shape.head.kind == "multiple_choice":
            batch *= max(shape.head.num_labels, 2)  # every choice of a question is a row
        if shape.head.kind == "feature_extraction":
            batch *= 2  # a query and a passage
        encoder = shape.architecture == "encoder"
        if shape.head.kind == "causal_lm":
            longer += target  # prompt and answer are one sequence
        return cls(batch, longer if encoder else 0, 0 if encoder else longer, traits.prefix_positions, padded)

    def length(self, stack: Stack) -> int:
        """Positions in a stack."""
        return self.encoder_length if stack == "encoder" else self.decoder_length

    def tokens(self, stack: Stack) -> int:
        """Positions in a stack, over the whole micro-batch."""
        return self.batch * self.length(stack)


def block_bytes(
    shape: ModelShape, stack: Stack, work: Work, regime: Regime, *, trained: bool, keeps_outputs: bool = False
) -> float:
    """Bytes kept by one block of a stack; ``trained`` when the base's own weights get gradients."""
    cross = _looks_across(shape, stack)
    tokens = work.tokens(stack)
    total = tokens * (_norms(shape, regime, cross, trained) + _dropouts(shape, cross))
    total += tokens * _feed_forward(shape, regime, trained)
    total += _self_attention(shape, stack, work, regime, trained)
    if cross:
        total += _cross_attention(shape, work, regime, trained)
    if keeps_outputs:
        total += tokens * 2 * regime.attention * shape.kv_size
    return total + tokens * _read_in_eight_bits(shape, stack, regime)


def _norms(shape: ModelShape, regime: Regime, cross: bool, trained: bool) -> float:
    count = 1 if habits(shape).parallel else shape.norms_per_block + cross
    if not shape.rms_norm:
        return float(count * shape.hidden_size * regime.norm)
    # T5 multiplies the 16-bit states themselves, and squares a float32 copy
    kept = 4 + (regime.stream if shape.relative_attention and regime.stream < 4 else 0)
    normalised = (4 if habits(shape).float_norms else regime.stream) if trained else 0
    return float(count * shape.hidden_size * (kept + normalised))


def _feed_forward(shape: ModelShape, regime: Regime, trained: bool) -> float:
    width, inner = shape.intermediate_size, regime.inner
    widened = 4 - inner if regime.autocast and shape.activation == _THIRD_POWER else 0
    of_activation = _ACTIVATION_TENSORS.get(shape.activation, 1)
    kept = float(width * (of_activation * inner + (of_activation - 1) * widened))
    if shape.gated_ffn:
        kept += width * (2 * inner + widened)
    reads_own = not _one_norm(shape) or regime.autocast
    if trained:
        kept += _read(shape, regime, "ffn_gate", "ffn_in", "ffn_gate_in") * reads_own
        # the output of a plain ReLU is kept already; T5's last matrix takes a copy all the same under autocast
        if not _keeps_output(shape) or (shape.relative_attention and regime.autocast):
            kept += inner * width
    return kept


def _read_in_eight_bits(shape: ModelShape, stack: Stack, regime: Regime, *, alone: bool = False) -> float:
    """Bytes a position of what frozen 8-bit layers read and keep: normed states (the encoder's output is one tensor for
    all layers) and the last matrix's input; ``alone``: what attention gave, too, which else is kept in any case."""
    if not regime.keeps_inputs:
        return 0
    cross = _looks_across(shape, stack)
    kept = float((2 - _one_norm(shape) + cross) * shape.hidden_size * regime.stream)
    if alone:
        kept += (1 + cross) * shape.num_heads * shape.head_dim * regime.attention
    if not stays_float(shape, "ffn_out") and (alone or not _keeps_output(shape)):
        kept += shape.intermediate_size * regime.inner
    return kept


def _looks_across(shape: ModelShape, stack: Stack) -> bool:
    """Whether blocks of a stack attend to the encoder's output."""
    return stack == "decoder" and shape.architecture == "encoder-decoder"


def _keeps_output(shape: ModelShape) -> bool:
    """Whether the activation keeps its output, which the last matrix reads: a plain ReLU does."""
    return shape.activation == "relu" and not shape.gated_ffn


def _one_norm(shape: ModelShape) -> bool:
    """Whether attention and feed-forward part read one and the same tensor."""
    return shape.norms_per_block == 1


def _read(shape: ModelShape, regime: Regime, *roles: str) -> float:
    """Bytes a position of what trained layers of these roles read: one tensor, or under autocast a copy each."""
    readers = len({linear.role for linear in shape.by_role(*roles)})
    return shape.hidden_size * regime.attention * (readers if regime.autocast else 1)


def _dropouts(shape: ModelShape, cross: bool) -> float:
    """A byte for each element that dropout has looked at; T5 also drops inside the feed-forward part."""
    if not shape.dropout:
        return 0.0
    inner = shape.relative_attention or dict(shape.config).get("activation_dropout")
    inside = shape.intermediate_size if inner else 0
    return shape.hidden_size * (3 if cross else 2) + inside


def _self_attention(shape: ModelShape, stack: Stack, work: Work, regime: Regime, trained: bool) -> float:
    # peft's prefixes reach the last stack alone
    takes_prefix = work.prefix_everywhere or stack == "decoder" or shape.architecture == "encoder"
    length = work.length(stack)
    # a decoder that reads labels has no padding mask: one bias serves every row
    rows = 1 if stack == "decoder" else work.batch
    kept = attention_bytes(
        shape,
        regime,
        work.batch,
        length,
        length + (work.prefix if takes_prefix else 0),
        trained=trained,
        masked=work.padded,
        biased_rows=rows if shape.relative_attention else 0,
    )
    if trained and not habits(shape).gated:
        kept += work.tokens(stack) * _read(shape, regime, "query", "key", "value", "query_key_value")
    return kept


def _cross_attention(shape: ModelShape, work: Work, regime: Regime, trained: bool) -> float:
    rows = work.batch if shape.relative_attention else 0
    kept = attention_bytes(
        shape, regime, work.batch, work.decoder_length,
        work.encoder_length + (work.prefix if work.prefix_everywhere else 0), trained=trained, masked=work.padded,
        biased_rows=rows,
    )  # fmt: skip
    if trained:
        copies = 2 * work.tokens("encoder") if regime.autocast else 0  # keys and values each copy the encoder's output
        kept += (work.tokens("decoder") + copies) * shape.hidden_size * regime.attention
    return kept


def head_bytes(
    shape: ModelShape, work: Work, regime: Regime, *, keeps_outputs: bool = False, forward_only: bool = False
) -> int:
    """Logits and loss at their peak, in the backward pass: the log-softmax, its gradient and that of the logits.

    Decoders turn their logits to float32 for the loss, encoder-decoders only under autocast. Without a backward pass:
    the logits as they come, in float32, and the log-softmax.
    """
    width = 2 if regime is HALF and shape.head.kind in ("seq2seq_lm", "speech_seq2seq") else 4
    if shape.head.kind in LANGUAGE_MODEL_HEADS:
        own = regime.attention if keeps_outputs else 0
        if forward_only:
            return work.tokens("decoder") * shape.head.width * (2 * 4 + regime.attention % 4)
        return work.tokens("decoder") * shape.head.width * (_LOSS_TENSORS * width + own)
    stack: Stack = "encoder" if shape.architecture == "encoder" else "decoder"
    spread = shape.head.kind in ("token_classification", "question_answering", "ctc")
    return (work.tokens(stack) if spread else work.batch) * shape.head.width * _LOSS_TENSORS * width


def reversal_bytes(shape: ModelShape, traits: MemoryTraits, work: Work, regime: Regime) -> int:
    """What a reversible block keeps when it is computed again, and the streams and gradients around it."""
    if not traits.reversible:
        return 0
    found = [
        block_bytes(shape, stack, work, regime, trained=False)
        + work.tokens(stack) * (method / layers + _REVERSAL_BYTES * shape.hidden_size)
        for stack, layers, method in _stacks(shape, traits, regime)
    ]
    return round(max(found))


def backward_bytes(shape: ModelShape, work: Work, regime: Regime) -> int:
    """Temporaries in the backward pass of one block, at its feed-forward part."""
    tokens = max(work.tokens("encoder"), work.tokens("decoder"))
    inner = _BACKWARD_TENSORS[shape.gated_ffn] * regime.inner * shape.intermediate_size
    return tokens * (inner + 2 * regime.stream * shape.hidden_size)


def kept_bytes(
    shape: ModelShape,
    traits: MemoryTraits,
    work: Work,
    regime: Regime,
    *,
    checkpointing: bool = False,
    keeps_outputs: bool = False,
) -> int:
    """Bytes that autograd keeps of a whole forward pass, the head's logits apart; under checkpointing each block keeps
    its input alone."""
    if traits.backward_reaches == "nothing":
        return _passing_bytes(shape, work, regime)
    if traits.backward_reaches == "top":
        own = sum(work.tokens(stack) * of_method for stack, _, of_method in _stacks(shape, traits, regime))
        return _passing_bytes(shape, work, regime) + round(own)
    # a block that is run again makes its own updates again
    total = traits.kept_bytes_per_step / (shape.num_layers if checkpointing else 1)
    for stack, layers, of_method in _stacks(shape, traits, regime):
        tokens = work.tokens(stack)
        if checkpointing:
            # what bitsandbytes keeps by itself, checkpointing does not let go
            passed = _read_in_eight_bits(shape, stack, regime, alone=True)
            total += layers * tokens * (regime.stream * shape.hidden_size + passed)
        elif traits.reversible:
            total += tokens * _STREAM_BYTES * shape.hidden_size
        else:
            trained = traits.keeps_layer_inputs
            total += tokens * of_method + layers * block_bytes(
                shape, stack, work, regime, trained=trained, keeps_outputs=keeps_outputs
            )
        total += shared_bytes(shape, regime, work.batch, work.length(stack))
        # the last norm, and the embeddings on their way in
        total += tokens * shape.hidden_size * (4 + regime.stream)
    return round(total)


def rerun_bytes(shape: ModelShape, traits: MemoryTraits, work: Work, regime: Regime) -> int:
    """What the largest block keeps while checkpointing runs it again, in the backward pass."""
    if traits.backward_reaches in ("nothing", "top"):
        return 0
    trained, regime = traits.keeps_layer_inputs, replace(regime, keeps_inputs=False)
    blocks = (
        block_bytes(shape, stack, work, regime, trained=trained) + work.tokens(stack) * of_method / layers
        for stack, layers, of_method in _stacks(shape, traits, regime)
    )
    return round(max(blocks))


def _stacks(shape: ModelShape, traits: MemoryTraits, regime: Regime) -> list[tuple[Stack, int, float]]:
    """Stacks that the backward pass enters: name, blocks, and the method's own bytes a position."""
    kept = traits.kept_bytes_per_token
    if regime in (QUANTIZED, EIGHT_BIT) and traits.kept_under_autocast is not None:
        kept = traits.kept_under_autocast
    found: list[tuple[Stack, int, float]] = []
    if shape.encoder_layers and not (traits.backward_reaches == "decoder" and shape.decoder_layers):
        found.append(("encoder", shape.encoder_layers - traits.quiet_blocks[0], kept[0]))
    if shape.decoder_layers:
        found.append(("decoder", shape.decoder_layers - traits.quiet_blocks[1], kept[1]))
    return found


def _passing_bytes(shape: ModelShape, work: Work, regime: Regime) -> int:
    """What is alive while one block runs forward and nothing is kept."""
    tokens = max(work.tokens("encoder"), work.tokens("decoder"))
    return tokens * (2 * regime.inner * shape.intermediate_size + 6 * regime.attention * shape.hidden_size)
