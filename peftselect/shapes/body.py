"""What every architecture family fills in, and the helpers to do so."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from peftselect.errors import InputError
from peftselect.shape import Architecture, AudioInput, HeadKind, LinearModule, Role, Stack

Config = Mapping[str, Any]
#: path inside a block, role, in and out features, whether it has a bias
Row = tuple[str, Role, int, int, bool]


@dataclass(frozen=True)
class Head:
    """A task head in one model class: its parameters, and what of the body that class adds or leaves out.

    ``parameters`` and ``modules``: what must be trained and saved. ``frozen`` and ``frozen_biases``: parameters which
    this class has beside body and head (a pooler, an untied language-model matrix) and which stay frozen.
    """

    kind: HeadKind
    width: int
    parameters: int = 0
    modules: tuple[str, ...] = ()
    frozen: int = 0
    frozen_biases: int = 0
    #: whether what is frozen is a pooler
    pooler: bool = False


@dataclass(frozen=True)
class Body:
    """A family's answer for one configuration, heads left open (see :class:`peftselect.shape.ModelShape`).

    ``embeddings``, ``norms`` and ``other`` are parameters outside the linear modules of the blocks;
    ``other_biases`` counts the biases among them. ``activation`` and ``dropout`` are the family's defaults, for
    configurations that do not name them.
    """

    architecture: Architecture
    hidden_size: int
    num_heads: int
    intermediate_size: int
    vocab_size: int
    linears: tuple[LinearModule, ...]
    embeddings: int
    norms: int
    encoder_layers: int = 0
    decoder_layers: int = 0
    other: int = 0
    other_biases: int = 0
    embedding_size: int = 0
    num_kv_heads: int = 0
    head_dim: int = 0
    max_positions: int | None = None
    gated_ffn: bool = False
    tied_embeddings: bool = True
    relative_attention: bool = False
    rms_norm: bool = False
    norms_per_block: int = 2
    activation: str = "gelu"
    dropout: bool = False
    audio: AudioInput | None = None
    heads: Mapping[str, Callable[[int], Head]] = field(default_factory=dict)
    #: another body under some heads (Whisper's classifier has no decoder)
    under: Mapping[str, Body] = field(default_factory=dict)

    @property
    def parameters(self) -> int:
        """Parameters without any head."""
        return self.embeddings + self.norms + self.other + sum(linear.parameters for linear in self.linears)

    @property
    def biases(self) -> int:
        """Bias parameters without any head."""
        return self.other_biases + sum(linear.count * linear.out_features for linear in self.linears if linear.bias)


FAMILIES: dict[str, Callable[[Config], Body]] = {}


def family(*model_types: str) -> Callable[[Callable[[Config], Body]], Callable[[Config], Body]]:
    """Register a function from configuration to body under transformers' ``model_type`` names."""

    def register(function: Callable[[Config], Body]) -> Callable[[Config], Body]:
        FAMILIES.update(dict.fromkeys(model_types, function))
        return function

    return register


def need(config: Config, *keys: str) -> int:
    """The first of ``keys`` in the configuration, as a positive whole number; InputError names what is missing."""
    for key in keys:
        value = config.get(key)
        if value is None:
            continue
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise InputError(f"config.json: {key} is {value!r}, not a positive whole number", "check the file")
        return value
    raise InputError(
        f"config.json of a {config.get('model_type')} model lacks {keys[0]!r}", "take the file that came with the model"
    )


def blocks(
    stack: Stack, count: int, *layers: Row, cross: bool = False, applications: int = 0
) -> tuple[LinearModule, ...]:
    """Linear groups of ``count`` blocks from (path, role, in, out, bias) rows."""
    return tuple(
        LinearModule(path, role, wide_in, wide_out, count, bias, stack, cross, applications=applications)
        for path, role, wide_in, wide_out, bias in layers
    )


def linear_parameters(wide_in: int, wide_out: int) -> int:
    """Parameters of a linear layer with a bias."""
    return wide_in * wide_out + wide_out


def score_head(hidden: int, *, drop: int = 0) -> Callable[[int], Head]:
    """The head of a decoder that classifies: one matrix without a bias, and no language-model matrix."""
    return lambda labels: Head("sequence_classification", labels, hidden * labels, ("score",), frozen=-drop)


def decoder_heads(
    hidden: int, vocabulary: int, *, untied: int = 0, biases: int = 0
) -> dict[str, Callable[[int], Head]]:
    """Language-model and classification heads of a decoder; ``untied`` counts a separate language-model matrix."""
    return {
        "causal_lm": lambda _: Head("causal_lm", vocabulary, frozen=untied + biases, frozen_biases=biases),
        "sequence_classification": score_head(hidden),
    }
