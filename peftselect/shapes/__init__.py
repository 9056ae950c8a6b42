"""From a ``config.json`` to the exact shape of the model it describes: one module for each line of architectures."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, UnknownNameError
from peftselect.shape import HeadShape, ModelShape
from peftselect.shapes.body import FAMILIES, Body, Config

if TYPE_CHECKING:
    from peftselect.method import Method

_ACTIVATIONS = ("hidden_act", "hidden_activation", "activation_function", "activation", "dense_act_fn")
_DROPOUTS = ("hidden_dropout_prob", "dropout_rate", "dropout", "resid_pdrop", "resid_dropout", "hidden_dropout")
_LAYERS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "num_decoder_layers",
           "decoder_layers")  # fmt: skip
_DEFAULT_HEADS = {"encoder": "sequence_classification", "decoder": "causal_lm", "encoder-decoder": "seq2seq_lm"}
_DEFAULT_AUDIO_HEADS = {"encoder": "audio_classification", "encoder-decoder": "speech_seq2seq"}


def known_model_types() -> list[str]:
    """Every ``model_type`` whose shape can be read, sorted."""
    for item in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{item.name}")
    return sorted(FAMILIES)


def read_shape(config: Config, head: str | None = None, num_labels: int = 2, *, new_pooler: bool = False) -> ModelShape:
    """The shape of the model that ``config`` describes, under a task head.

    ``head`` None takes the language-model head of decoders and encoder-decoders, classification for encoders. Counts
    equal those of the transformers class which ``run`` loads. ``new_pooler``: the checkpoint lacks the pooler that this
    head reads, so that it belongs to the head (:attr:`peftselect.problem.BaseModel.lacks_pooler`). InputError for an
    architecture, head or field that is missing.
    """
    kind = config.get("model_type")
    if not kind:
        raise InputError("config.json has no model_type", "is this a transformers model folder?")
    known = known_model_types()
    if kind not in known:
        raise UnknownNameError("architecture", str(kind), known)
    body = FAMILIES[str(kind)](config)
    wanted = head or (_DEFAULT_HEADS if body.audio is None else _DEFAULT_AUDIO_HEADS)[body.architecture]
    carried = {**body.heads, **{name: other.heads[name] for name, other in body.under.items()}}
    if wanted not in carried:
        raise InputError(f"a {kind} model cannot carry a {wanted} head", f"it can carry: {', '.join(sorted(carried))}")
    body = body.under.get(wanted, body)
    made = body.heads[wanted](num_labels)
    if new_pooler and made.pooler:
        made = replace(
            made,
            parameters=made.parameters + made.frozen,
            modules=(*made.modules, "pooler"),
            frozen=0,
            frozen_biases=0,
        )
    shape = HeadShape(made.kind, made.parameters, made.modules, num_labels if made.modules else 0, made.width)
    return _shape(str(kind), body, shape, made.frozen, made.frozen_biases, config)


def shape_for(method: Method, config: Config, num_labels: int = 2) -> ModelShape:
    """The shape under the usual head, or, where ``method`` does not serve that, under one that it serves."""
    shape = read_shape(config, num_labels=num_labels)
    for head in sorted(method.heads) if shape.head.kind not in method.heads else ():
        try:
            return read_shape(config, head, num_labels)
        except InputError:
            continue
    return shape


def _shape(kind: str, body: Body, head: HeadShape, frozen: int, frozen_biases: int, config: Config) -> ModelShape:
    plain: tuple[tuple[str, Any], ...] = tuple(
        (key, value) for key, value in sorted(config.items()) if isinstance(value, str | int | float | bool)
    )
    return ModelShape(
        model_type=kind,
        architecture=body.architecture,
        hidden_size=body.hidden_size,
        embedding_size=body.embedding_size or body.hidden_size,
        encoder_layers=body.encoder_layers,
        decoder_layers=body.decoder_layers,
        num_heads=body.num_heads,
        num_kv_heads=body.num_kv_heads or body.num_heads,
        head_dim=body.head_dim or body.hidden_size // body.num_heads,
        intermediate_size=body.intermediate_size,
        vocab_size=body.vocab_size,
        max_positions=body.max_positions,
        gated_ffn=body.gated_ffn,
        tied_embeddings=body.tied_embeddings,
        total_parameters=body.parameters + frozen + head.parameters,
        bias_parameters=body.biases + frozen_biases,
        linears=body.linears,
        head=head,
        relative_attention=body.relative_attention,
        rms_norm=body.rms_norm,
        norms_per_block=body.norms_per_block,
        norm_parameters=body.norms,
        activation=_activation(config, body),
        dropout=_dropout(config, body),
        audio=body.audio,
        block_parameters=(
            _block_parameters(kind, body, config, "encoder_layers"),
            _block_parameters(kind, body, config, "decoder_layers"),
        ),
        config=plain,
    )


def _block_parameters(kind: str, body: Body, config: Config, stack: str) -> int:
    """What the model grows by with one block more in a stack; 0 where there is no such stack or blocks are shared."""
    layers = getattr(body, stack)
    for key in _LAYERS if layers else ():
        if config.get(key) == layers:
            both = {**config, "num_decoder_layers": body.decoder_layers, key: layers + 1}
            longer = FAMILIES[kind](both)
            if (longer.encoder_layers - body.encoder_layers, longer.decoder_layers - body.decoder_layers) == (
                int(stack == "encoder_layers"),
                int(stack == "decoder_layers"),
            ):
                return longer.parameters - body.parameters
    return 0


def _activation(config: Config, body: Body) -> str:
    """The activation's name; T5 names it within ``feed_forward_proj``, where a gated GELU is the tanh form."""
    named = next((str(config[key]) for key in _ACTIVATIONS if config.get(key)), None)
    if named is None and (projection := config.get("feed_forward_proj")):
        named = "gelu_new" if projection == "gated-gelu" else str(projection).removeprefix("gated-")
    return named or body.activation


def _dropout(config: Config, body: Body) -> bool:
    """Whether hidden states are dropped while training."""
    named = [float(config[key] or 0.0) for key in _DROPOUTS if config.get(key) is not None]
    return any(named) if named else body.dropout
