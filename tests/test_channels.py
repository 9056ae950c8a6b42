"""Channels and heads pruned while training: what is judged, what is hidden, what merging cuts out."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peftselect.method import ApplyContext, resolve_values
from peftselect.modeling import AUTO_CLASSES, merge
from peftselect.plugin_manager import host
from peftselect.testing.models import tiny_folder, tiny_shape
from peftselect.tuners.channels import cubic

STEPS = 10
HEADS = {"bert": "sequence_classification", "t5": "seq2seq_lm", "gpt2": "causal_lm", "llama": "causal_lm",
         "bart": "seq2seq_lm"}  # fmt: skip


def base(kind: str) -> Any:
    import transformers

    return getattr(transformers, AUTO_CLASSES[HEADS[kind]]).from_pretrained(tiny_folder(kind, HEADS[kind]))


def batch(kind: str) -> dict[str, torch.Tensor]:
    ids = torch.arange(10, 26).reshape(2, 8)
    return {"input_ids": ids, "labels": torch.tensor([0, 2]) if kind == "bert" else ids}


def logits(model: Any, kind: str) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model.eval()(**batch(kind)).logits
    return found


def trained(name: str, kind: str, steps: int = STEPS) -> Any:
    """A model after so many of STEPS optimizer steps."""
    shape = tiny_shape(kind, HEADS[kind])
    assert shape is not None
    method = host().method(name)
    values, context, plain = resolve_values(method, shape), ApplyContext(shape, "test", STEPS), base(kind)
    torch.manual_seed(0)
    model = method.apply(plain, values, context).train()
    (callback,) = method.callbacks(values, context)
    optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=1e-2)
    for step in range(steps):
        model(**batch(kind)).loss.backward()
        callback.on_pre_optimizer_step(None, SimpleNamespace(global_step=step), None, model=model)
        optimizer.step()
        optimizer.zero_grad()
    return model


def masks(model: Any) -> dict[str, torch.Tensor]:
    return {name: item for name, item in model.named_buffers() if name.endswith("mask") and "psel_" in name}


def test_the_schedule_is_a_cubic_between_two_rests() -> None:
    shares = [cubic(step, 100, 0.5) for step in range(101)]
    assert shares[:11] == [0.0] * 11 and shares[90:] == [0.5] * 11
    assert shares == sorted(shares)
    assert shares[50] == pytest.approx(0.5 * (1 - 0.5**3))
    assert cubic(1, 1, 0.5) == 0.5


def test_importance_is_what_the_gradients_of_the_factors_say_of_the_weights() -> None:
    model = trained("loraprune", "llama", steps=2).train()
    model(**batch("llama")).loss.backward()
    tuner = model.base_model
    name, reader, feeders = next(item for item in tuner.groups("default") if item[0].endswith("down_proj"))
    parts = []
    for layer, of_inputs in [(reader, True), *[(feeder, False) for feeder, _ in feeders]]:
        down, up = layer.factors("default")
        change = up.grad @ down + up @ down.grad - up.grad @ down.grad
        size = (change * (layer.base_layer.weight + layer.configs["default"].scale * up @ down)).abs()
        part = size.sum(0) if of_inputs else size.sum(1)
        parts.append(part / part.norm())
    assert len(parts) == 3
    assert torch.allclose(tuner.importance("default")[name], sum(parts), atol=1e-5)


@pytest.mark.parametrize("name", ["splora", "loraprune"])
def test_what_is_pruned_grows_to_the_sparsity_and_stays(name: str) -> None:
    half = masks(trained(name, "bert", steps=6))
    model = trained(name, "bert")
    whole = masks(model)
    assert half and all((half[key] >= whole[key]).all() for key in half)
    assert {float(mask.float().mean()) for mask in whole.values()} == {0.5}
    assert any(float(mask.float().mean()) > 0.5 for mask in half.values())
    assert not model.base_model.unsettled
    assert trained(name, "bert", steps=6).base_model.unsettled


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("name", ["splora", "loraprune"])
def test_merging_cuts_the_channels_out_and_the_result_loads_alone(name: str, kind: str, tmp_path: Path) -> None:
    model = trained(name, kind)
    apart = logits(model, kind)
    merged = merge(model)
    assert torch.allclose(logits(merged, kind), apart, atol=1e-5)
    merged.save_pretrained(tmp_path)
    again = type(base(kind)).from_pretrained(tmp_path)
    assert torch.allclose(logits(again, kind), apart, atol=1e-5)
    assert sum(item.numel() for item in again.parameters()) < sum(item.numel() for item in base(kind).parameters())


def test_a_merged_adapter_can_be_taken_apart_again() -> None:
    model = trained("loraprune", "gpt2")
    before = logits(model, "gpt2")
    weights = {name: item.clone() for name, item in model.named_parameters()}
    model.merge_adapter()
    assert torch.allclose(logits(model, "gpt2"), before, atol=1e-5)
    model.unmerge_adapter()
    assert torch.allclose(logits(model, "gpt2"), before, atol=1e-5)
    assert all(torch.allclose(item, weights[name], atol=1e-5) for name, item in model.named_parameters())


def test_quantization_aware_training_saves_weights_on_their_grid(tmp_path: Path) -> None:
    from peftselect.tuners.rounding import rounded

    shape = tiny_shape("bert", "sequence_classification")
    assert shape is not None
    method = host().method("qat")
    model = method.apply(base("bert"), {"bits": 4}, ApplyContext(shape, "test", STEPS))
    latent = model.bert.encoder.layer[0].attention.self.query.weight
    model(**batch("bert")).loss.backward()
    assert (latent.grad != 0).all()
    model.save_pretrained(tmp_path)
    again = base("bert").from_pretrained(tmp_path)
    assert torch.equal(logits(again, "bert"), logits(model, "bert"))
    saved = again.bert.encoder.layer[0].attention.self.query.weight
    assert not torch.equal(saved, latent) and torch.allclose(saved, rounded(latent, 4, 1))
    assert max(len(row.unique()) for row in saved.detach()) <= 16
