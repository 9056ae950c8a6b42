"""The closed form's peak, method hooks and all, against traces of the real step: four layers of published shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from peftselect.base_models import resolve_base_model
from peftselect.memory.closed_form import estimate_memory
from peftselect.memory.trace import TraceRequest
from peftselect.memory.worker import trace_memory
from peftselect.method import Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape

#: model, head, layers left of each stack, largest error: with so few layers, what is counted once a model weighs most
SHAPES = (
    ("llama-3.2-1b", "causal_lm", {"num_hidden_layers": 4}, 0.10),
    ("bert-base-uncased", "sequence_classification", {"num_hidden_layers": 4}, 0.15),
    ("wav2vec2-base", "audio_classification", {"num_hidden_layers": 4}, 0.15),
    ("flan-t5-base", "seq2seq_lm", {"num_layers": 4, "num_decoder_layers": 4}, 0.12),
)
#: the closed form counts a block's passing tensors although nothing of the body is run backwards; peft's loss under CPT
#: reads values of tensors, of which a trace has the shapes alone
APART = {"head_only", "cpt"}
SOONER, LATER = pytest.mark.slow, pytest.mark.exhaustive
RECIPE = Recipe("bf16", None, 4, 1, False, 1e-4, 1.0, 256)


#: what makes a step hold other things: method, model, and what differs from RECIPE
RECIPES = (
    ("lora", "llama-3.2-1b", {"quantization": "int8"}),
    ("lora", "llama-3.2-1b", {"quantization": "int8", "gradient_checkpointing": True}),
    ("lora", "gpt2-medium", {"quantization": "nf4"}),
    ("lora", "gpt2-medium", {"precision": "fp16"}),
    ("full_finetuning", "gpt2-medium", {"optimizer": "adamw_8bit"}),
    ("full_finetuning", "llama-3.2-1b", {"gradient_checkpointing": True}),
    ("full_finetuning", "llama-3.2-1b", {"optimizer": "adafactor", "precision": "pure_bf16"}),
)


def error(name: str, model: str, head: str, layers: Mapping[str, int], **changes: Any) -> float | None:
    """Closed form over traced peak, less one; None where the method does not serve the model."""
    config: dict[str, Any] = {**resolve_base_model(model).config, **layers}
    method, shape = host().method(name), read_shape(config, head, 2)
    if head not in method.heads or shape.architecture not in method.architectures or method.kind != "runnable":
        return None
    values = resolve_values(method, shape)
    if method.unsupported(shape, values):
        return None
    recipe = replace(RECIPE, quantization="nf4" if method.quantized_base == "required" else None)
    recipe = replace(recipe, **changes)
    if shape.audio:
        recipe = replace(recipe, max_length=10)
    if head == "seq2seq_lm":
        recipe = replace(recipe, max_target_length=64)
    traced = trace_memory(TraceRequest(config, head, 2, False, name, values, recipe)).breakdown
    parts = estimate_memory(shape, method, values, recipe).breakdown
    said = sum(size for part, size in parts.items() if part not in ("fragmentation", "workspace", "cuda_context"))
    return said / sum(traced.values()) - 1


@pytest.mark.parametrize("name", ["lora", "ia3", "prompt_tuning"])
def test_the_closed_form_is_near_the_trace(name: str) -> None:
    model, head, layers, largest = SHAPES[0]
    found = error(name, model, head, layers)
    assert found is not None
    assert abs(found) < largest


@pytest.mark.parametrize(("name", "model", "changes"), RECIPES)
def test_the_closed_form_follows_the_recipe(name: str, model: str, changes: dict[str, Any]) -> None:
    found = error(
        name, model, "causal_lm", {"n_layer" if model.startswith("gpt2") else "num_hidden_layers": 4}, **changes
    )
    assert found is not None
    assert abs(found) < 0.06


@pytest.mark.parametrize(
    ("model", "head", "layers", "largest"),
    [pytest.param(*shape, id=shape[0], marks=SOONER if number == 0 else LATER) for number, shape in enumerate(SHAPES)],
)
def test_every_method_is_near_its_trace(model: str, head: str, layers: Mapping[str, int], largest: float) -> None:
    found = {name: error(name, model, head, layers) for name in sorted(host().methods()) if name not in APART}
    served = {name: value for name, value in found.items() if value is not None}
    assert len(served) > 10
    assert {name: round(value, 3) for name, value in served.items() if abs(value) >= largest} == {}
