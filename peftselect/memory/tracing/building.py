"""The model of a traced step, built as ``run`` builds it but from its configuration alone, and a batch for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch

from peftselect.errors import InputError
from peftselect.memory.trace import NotTracedError, TraceRequest
from peftselect.memory.tracing.quantized import quantize
from peftselect.memory.tracing.step import Batch
from peftselect.method import PROMPTED, ApplyContext, Method
from peftselect.modeling import AUTO_CLASSES, DTYPES, rest_front, train_in_float32
from peftselect.plugin_manager import host
from peftselect.processors import speak_at_mask
from peftselect.shape import ModelShape
from peftselect.shapes import read_shape

#: total optimizer steps that a method is told
TOTAL_STEPS = 1000
#: keys of a peft configuration that say where it comes from, or how it is loaded
_NOT_SETTINGS = ("peft_version", "base_model_name_or_path", "auto_mapping", "revision", "inference_mode")


def shape_of(request: TraceRequest) -> ModelShape:
    """The shape of the model that is traced, its layers cut to those asked for."""
    config: Mapping[str, Any] = request.config
    if request.layers is not None:
        config = transformers_config(request).to_dict()
    return read_shape(config, request.head, request.num_labels, new_pooler=request.new_pooler)


def transformers_config(request: TraceRequest) -> Any:
    """The configuration under the request's head, with the layers asked for."""
    import transformers

    settings = {key: value for key, value in request.config.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(request.config["model_type"], **settings)
    if request.layers is not None:
        _cut(config, *request.layers)
    return config


def load_model(request: TraceRequest, shape: ModelShape, device: str) -> Any:
    """The base model under its head, on the fake device."""
    import transformers
    from transformers.initialization import no_init_weights

    recipe, method = request.recipe, method_of(request)
    config = transformers_config(request)
    config.num_labels = 2 if shape.head.kind == "question_answering" else max(request.num_labels, 1)
    config.use_cache = request.loop.keeps_outputs
    if shape.architecture == "encoder-decoder" and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    if config.pad_token_id is None:
        config.pad_token_id = 0
    if shape.audio is not None:
        _without_chance(config)
        if shape.head.kind == "ctc":
            config.vocab_size = max(request.num_labels, 1)
    whole = method is not None and not method.saves_adapter and not method.forward_only
    master = whole and recipe.precision != "pure_bf16"
    dtype = torch.float32 if master else DTYPES[recipe.precision]
    loader = getattr(transformers, AUTO_CLASSES[shape.head.kind])
    with no_init_weights(), torch.device(device):
        model = loader.from_config(config, dtype=dtype)
    if shape.head.kind in PROMPTED:
        speak_at_mask(model, 0)
    if shape.audio is not None:
        model = model.to(device)  # wav2vec 2.0 makes its mask's vector by a constructor that knows no default device
    model.tie_weights()
    if not shape.tied_embeddings:
        _untie(model)
    if recipe.quantization:
        model = quantize(model, recipe, shape)
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model


def _without_chance(config: Any) -> None:
    """Take out what chance decides in a step of a speech model: layers left out, positions masked."""
    for name in ("layerdrop", "encoder_layerdrop", "decoder_layerdrop"):
        if hasattr(config, name):
            setattr(config, name, 0.0)
    config.apply_spec_augment = False


def _untie(model: Any) -> None:
    """Transformers ties every T5 that it makes anew; published checkpoints hold two matrices where they say so."""
    read, written = model.get_input_embeddings(), model.get_output_embeddings()
    if read is not None and written is not None and written.weight is read.weight:
        written.weight = torch.nn.Parameter(torch.empty_like(read.weight))


def apply_method(model: Any, request: TraceRequest, shape: ModelShape) -> Any:
    """The model with the method, or the raw peft configuration, applied."""
    method = method_of(request)
    if method is None:
        return _with_peft(model, request)
    model = method.apply(
        model,
        request.values,
        ApplyContext(shape, "trace", TOTAL_STEPS, quantized=request.recipe.quantization is not None),
    )
    rest_front(model)
    if request.recipe.precision != "pure_bf16" and (method.saves_adapter or not method.forward_only):
        train_in_float32(model)
    return model


def method_of(request: TraceRequest) -> Method | None:
    """The method asked for; None under a raw peft configuration."""
    return None if request.peft_config is not None else host().method(request.method)


def prepended(request: TraceRequest) -> int:
    """Positions put before the input, which logits have and labels lack."""
    if (method := method_of(request)) is not None:
        return method.prepended_positions(request.values)
    config = request.peft_config or {}
    before = config.get("peft_type") in ("PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING", "CPT")
    return int(config.get("num_virtual_tokens") or 0) if before else 0


def wants_task_ids(request: TraceRequest) -> bool:
    """Whether the tuner routes by the task of each row."""
    return (request.peft_config or {}).get("peft_type") in ("MULTITASK_PROMPT_TUNING", "POLY")


def make_batch(shape: ModelShape, rows: int, length: int, target: int, before: int, device: str) -> Batch:
    """A padded batch with labels: ``length`` tokens a row in, ``target`` out; ``before`` positions are prepended."""

    def ids(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.long, device=device)

    head = shape.head.kind
    if shape.audio is not None:
        return _sounds(shape, rows, length, target, device)
    if head == "causal_lm":
        length += target
    choices = (shape.head.num_labels or 2,) if head == "multiple_choice" else ()
    if head == "feature_extraction":
        rows *= 2  # a query and a passage
    inputs = ids(rows, *choices, length)
    batch = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
    if head == "feature_extraction":
        return batch
    if head == "question_answering":
        return {**batch, "start_positions": ids(rows), "end_positions": ids(rows)}
    if head in ("sequence_classification", "multiple_choice"):
        return {**batch, "labels": ids(rows)}
    if head in PROMPTED:
        return {**batch, "labels": ids(rows, 1)}  # as one word each
    if head == "token_classification":
        return {**batch, "labels": ids(rows, before + length)}
    return {**batch, "labels": ids(rows, target if head == "seq2seq_lm" else length)}


def _sounds(shape: ModelShape, rows: int, seconds: float, target: int, device: str) -> Batch:
    """Sound of so many seconds, with labels but for CTC, whose loss reads the values of lengths."""
    audio = shape.audio
    assert audio is not None
    if audio.features > 1:
        batch = {"input_features": torch.zeros(rows, audio.features, audio.frames(seconds), device=device)}
    else:
        batch = {"input_values": torch.zeros(rows, audio.frames(seconds), device=device)}
        if audio.masked:
            batch["attention_mask"] = torch.ones(rows, audio.frames(seconds), dtype=torch.long, device=device)
    if shape.head.kind == "ctc":
        return batch
    size = (rows, target) if shape.head.kind == "speech_seq2seq" else (rows,)
    return {**batch, "labels": torch.zeros(size, dtype=torch.long, device=device)}


def _with_peft(model: Any, request: TraceRequest) -> Any:
    """A raw configuration applied by peft itself. InputError in peft's words where it does not fit the model."""
    from peft import PeftConfig, get_peft_model

    raw = {key: value for key, value in (request.peft_config or {}).items() if key not in _NOT_SETTINGS}
    if "peft_type" not in raw:
        raise InputError("the PEFT configuration has no peft_type", "give an adapter_config.json as peft writes it")
    _check_peft(raw)
    _cut_peft(raw, request)
    try:
        return get_peft_model(model, PeftConfig.from_peft_type(**raw))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise InputError(
            f"the PEFT configuration does not suit the model: {line[:160]}", "was it written for another model?"
        ) from error


def _check_peft(raw: Mapping[str, Any]) -> None:
    """InputError for a type or a setting that the installed peft does not know; it would leave such settings out."""
    from importlib.metadata import version

    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    made = PEFT_TYPE_TO_CONFIG_MAPPING.get(raw["peft_type"])
    if made is None:
        raise InputError(f"peft {version('peft')} knows no type {raw['peft_type']}", "was it written by another peft?")
    unknown = sorted(set(raw) - {field.name for field in fields(made)})
    if unknown:
        raise InputError(
            f"a {raw['peft_type']} configuration of peft {version('peft')} has no setting {', '.join(unknown)}",
            "take it out of the file if it does not matter: peft would leave it out",
        )


def _cut_peft(raw: dict[str, Any], request: TraceRequest) -> None:
    """Layer counts inside a peft configuration, brought down to those that are left of the model."""
    if request.layers is None:
        return
    if raw.get("layers_to_transform") is not None:
        raise NotTracedError("single layers are adapted, so that a few layers cannot stand for all")
    kept = max(request.layers)
    for name in ("num_layers", "adapter_layers"):
        if isinstance(raw.get(name), int):
            raw[name] = min(raw[name], kept)


def _cut(config: Any, encoder: int, decoder: int) -> None:
    """Leave so many layers in each stack of ``config``, and as many entries in lists that have one a layer."""
    decoder_name = next((name for name in ("num_decoder_layers", "decoder_layers") if hasattr(config, name)), None)
    if encoder and decoder and decoder_name:
        setattr(config, decoder_name, decoder)
    before, kept = config.num_hidden_layers, encoder or decoder
    config.num_hidden_layers = kept
    for name in ("encoder_layers", "num_layers"):
        if encoder and decoder and name in vars(config):
            setattr(config, name, encoder)
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == before and "layer" in name:
            setattr(config, name, value[:kept])
