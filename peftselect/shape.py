"""The shape of a base model: what arithmetic can know of it without loading a weight.

A shape is read from a ``config.json`` by :mod:`peftselect.shapes`. Methods count their trainable parameters from it,
:mod:`peftselect.memory.closed_form` prices activations with it; both must equal what the real model has.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

Architecture = Literal["encoder", "decoder", "encoder-decoder"]
HeadKind = Literal[
    "causal_lm",
    "seq2seq_lm",
    "sequence_classification",
    "token_classification",
    "question_answering",
    "multiple_choice",
    "feature_extraction",
    "audio_classification",
    "ctc",
    "speech_seq2seq",
    "masked_lm",
]
Stack = Literal["encoder", "decoder"]
Role = Literal[
    "query", "key", "value", "query_key_value", "attention_output", "ffn_gate", "ffn_in", "ffn_gate_in", "ffn_out"
]
ATTENTION_ROLES: frozenset[str] = frozenset({"query", "key", "value", "query_key_value", "attention_output"})


@dataclass(frozen=True)
class LinearModule:
    """A group of equal linear layers inside the blocks: what ``target_modules`` can match.

    ``path`` is the dotted name inside one block, as it ends in the model's module names (``"SelfAttention.q"``,
    ``"attention.output.dense"``, ``"mlp.down_proj"``), so that :meth:`matches` follows peft's rule: a target matches a
    module whose name equals it or ends in ``"." + target``. ``count`` is the number of distinct copies that hold
    parameters (ALBERT shares one among all layers); ``applications`` how often they are run in one forward pass.
    """

    path: str
    role: Role
    in_features: int
    out_features: int
    count: int
    bias: bool
    stack: Stack
    cross_attention: bool = False
    conv1d: bool = False
    applications: int = 0
    #: False where the model reads the weights without calling the layer (WavLM's attention), so that nothing put
    #: around the layer has an effect
    called: bool = True

    @property
    def name(self) -> str:
        """Last part of the path, which is how people name a target (``q``, ``query``, ``c_attn``)."""
        return self.path.rsplit(".", 1)[-1]

    @property
    def parameters(self) -> int:
        """Parameters of all copies, biases included."""
        return self.count * (self.in_features * self.out_features + (self.out_features if self.bias else 0))

    @property
    def runs(self) -> int:
        """How often a layer of this group is applied in one forward pass."""
        return self.applications or self.count

    def matches(self, target: str) -> bool:
        """Whether peft's ``target_modules`` entry ``target`` selects these layers."""
        return self.path == target or self.path.endswith("." + target)


@dataclass(frozen=True)
class HeadShape:
    """The task head on the base model.

    ``parameters`` counts what training the head trains; ``modules`` are the attribute names to hand to peft's
    ``modules_to_save`` (also where peft would add them by itself). A language-model head that is part of the base
    (tied or not) has no parameters of its own here: 0 and ``()``.
    """

    kind: HeadKind
    parameters: int = 0
    modules: tuple[str, ...] = ()
    num_labels: int = 0
    #: bytes of logits hang on it: the width of the output (vocabulary, labels, 2 for spans, 1 for a choice)
    width: int = 0


@dataclass(frozen=True)
class AudioInput:
    """How sound becomes positions: (channels, kernel, stride, padding) of each convolution before the blocks.

    ``normed``: how many of them, from the first on, have a norm. ``masked``: whether padding is masked.
    ``hop`` is the samples between the frames that the first convolution reads (1: the wave itself), ``features`` the
    numbers in each (mel bins). ``fixed_seconds``: every input is padded or cut to so much (Whisper); None: as it is.
    """

    convolutions: tuple[tuple[int, int, int, int], ...]
    hop: int = 1
    features: int = 1
    fixed_seconds: float | None = None
    sampling_rate: int = 16_000
    normed: int = 0
    masked: bool = False

    def frames(self, seconds: float) -> int:
        """What the first convolution reads of an input of ``seconds``."""
        return round((self.fixed_seconds or seconds) * self.sampling_rate) // self.hop

    def lengths(self, seconds: float) -> tuple[int, ...]:
        """Output length of each convolution."""
        found, length = [], self.frames(seconds)
        for _, kernel, stride, padding in self.convolutions:
            length = max((length + 2 * padding - kernel) // stride + 1, 1)
            found.append(length)
        return tuple(found)

    def positions(self, seconds: float) -> int:
        """Positions that the blocks see."""
        return self.lengths(seconds)[-1]


@dataclass(frozen=True)
class ModelShape:
    """Sizes and modules of a base model with its task head.

    ``total_parameters`` counts every parameter of the model class that ``run`` would load, head included, each tied
    tensor once. ``bias_parameters`` counts those whose name ends in ``bias`` outside the head.
    """

    model_type: str
    architecture: Architecture
    hidden_size: int
    embedding_size: int
    encoder_layers: int
    decoder_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    intermediate_size: int
    vocab_size: int
    max_positions: int | None
    gated_ffn: bool
    tied_embeddings: bool
    total_parameters: int
    bias_parameters: int
    linears: tuple[LinearModule, ...]
    head: HeadShape
    #: learnt biases on attention scores (T5), which make every layer build a bias of its own
    relative_attention: bool = False
    rms_norm: bool = False
    #: norms in a block (a decoder block with cross-attention has one more)
    norms_per_block: int = 2
    #: activation of the feed-forward part, in transformers' words ("gelu", "gelu_new", "relu", "silu", ...)
    activation: str = "gelu"
    #: scales and shifts of the body's normalisations
    norm_parameters: int = 0
    #: whether hidden states pass through dropout while training
    dropout: bool = False
    #: where the input is sound; lengths of it are then given in seconds
    audio: AudioInput | None = None
    #: parameters of one more block of the (encoder, decoder); of T5's first, which holds the position bias, fewer
    block_parameters: tuple[int, int] = (0, 0)
    #: plain values of the configuration, for what a method must look up
    config: tuple[tuple[str, object], ...] = ()

    def positions(self, length: int) -> int:
        """Positions of an input of ``length`` tokens, or of so many seconds where the input is sound."""
        return length if self.audio is None else self.audio.positions(length)

    @property
    def length_unit(self) -> str:
        """What the length of an input is given in."""
        return "tokens" if self.audio is None else "seconds"

    @property
    def longest_input(self) -> int | None:
        """The longest input there is room for: tokens, or whole seconds of sound; None where nothing ends it."""
        if self.audio is None:
            return self.max_positions
        return None if self.audio.fixed_seconds is None else max(round(self.audio.fixed_seconds), 1)

    @property
    def num_layers(self) -> int:
        """Blocks of the whole model (both stacks)."""
        return self.encoder_layers + self.decoder_layers

    @property
    def kv_size(self) -> int:
        """Width of the keys (and of the values) of one attention: ``num_kv_heads * head_dim``."""
        return self.num_kv_heads * self.head_dim

    @property
    def attention_count(self) -> int:
        """Attention sub-layers: one a block, and a second (cross) one in each decoder block of an encoder-decoder."""
        cross = self.decoder_layers if self.architecture == "encoder-decoder" else 0
        return self.num_layers + cross

    def select(self, targets: tuple[str, ...] | list[str] | str) -> tuple[LinearModule, ...]:
        """Linear groups that peft's ``target_modules`` selects; ``"all-linear"`` selects every one in the blocks."""
        if targets == "all-linear":
            return tuple(linear for linear in self.linears if linear.called)
        wanted = (targets,) if isinstance(targets, str) else tuple(targets)
        return tuple(linear for linear in self.linears if any(linear.matches(target) for target in wanted))

    def by_role(self, *roles: str) -> tuple[LinearModule, ...]:
        """Linear groups which play one of these roles, and are called as layers."""
        return tuple(linear for linear in self.linears if linear.role in roles and linear.called)

    def with_head(self, head: HeadShape, total_parameters: int) -> ModelShape:
        """The same body under another head."""
        return replace(self, head=head, total_parameters=total_parameters)
