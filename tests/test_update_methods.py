"""Tuners of peft for linear layers: what they refuse, keep whatever the batch is, add to the loss, and start from."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from peftselect import UpdateMethod
from peftselect.base_models import resolve_base_model
from peftselect.memory.closed_form import estimate_memory
from peftselect.method import ApplyContext, Recipe, resolve_values
from peftselect.modeling import count_parameters
from peftselect.plugin_manager import host
from peftselect.shapes import shape_for
from peftselect.testing.models import tiny_shape
from tests.test_shapes import build

RECIPE = Recipe("fp32", None, 1, 1, False, 1e-3, 1, 16)


def shape_of(kind: str) -> Any:
    found = tiny_shape(kind, "causal_lm")
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("name", "kind", "settings", "reason"),
    [
        ("loha", "gpt2", {}, "peft's LoHa does not take the transposed linear layers of gpt2"),
        ("c3a", "llama", {"block_size": 24}, "block_size=24 does not divide 32, the width of a target"),
        ("road", "llama", {"group_size": 5}, "group_size=5 is odd: outputs are taken in pairs"),
        ("hra", "llama", {"r": 3}, "r=3 is odd: the reflections start in pairs"),
        ("psoft", "llama", {"r": 64}, "r=64 is more than the 32 directions of a target"),
        ("miss", "llama", {"r": 64}, "r=64 is more than the 32 inputs of a target"),
        ("deft", "llama", {"r": 64}, "r=64 is more than the 32 outputs of a target"),
        ("fourierft", "llama", {"n_frequency": 5000}, "n_frequency=5000 is more than the 1024 weights of a target"),
        ("shira", "llama", {"r": 40}, "r=40 asks for more than the weights of a target"),
        ("supertuning", "llama", {"sparsity": 0.99999}, "sparsity=0.99999 leaves no weight of a target to train"),
        ("gralora", "llama", {"r": 5}, "r=5 is no multiple of gralora_k=2"),
        ("vblora", "llama", {"topk": 4, "num_vectors": 3}, "topk=4 is more than num_vectors=3"),
    ],
)
def test_what_cannot_be_served_is_said_in_a_line(name: str, kind: str, settings: dict[str, Any], reason: str) -> None:
    method, shape = host().method(name), shape_of(kind)
    assert method.unsupported(shape, resolve_values(method, shape, settings)) == reason


def test_an_update_as_large_as_the_weight_costs_the_same_whatever_the_batch() -> None:
    method, shape = host().method("loha"), shape_of("llama")
    values = resolve_values(method, shape)
    traits = method.memory(shape, values, 4)
    targets = method.targets(shape, values)  # type: ignore[attr-defined]
    assert traits.kept_bytes_per_step == 4 * sum(x.count * x.in_features * x.out_features for x in targets)
    plain = {name: estimate_memory(shape, host().method(name), resolve_values(host().method(name), shape), RECIPE)
             for name in ("loha", "miss")}  # fmt: skip
    assert plain["loha"].breakdown["activations"] > plain["miss"].breakdown["activations"]


def test_what_is_held_untrained_counts_with_the_adapter() -> None:
    method, shape = host().method("boft"), shape_of("llama")
    values = resolve_values(method, shape)
    adapter = estimate_memory(shape, method, values, RECIPE).breakdown["adapter"]
    held = method.memory(shape, values, 4).held_bytes
    assert held == 4 * 4 * 32**2  # a permutation of 32 inputs at four targets
    assert adapter == 4 * method.trainable_parameters(shape, values) + held


def _wrapped(name: str, settings: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
    """A tiny llama under the method, and the values it has."""
    import torch

    method, (model, shape) = host().method(name), build("llama", 0, "causal_lm")
    values = resolve_values(method, shape, {"r": 4, **(settings or {})})
    torch.manual_seed(0)
    return method.apply(model, values, ApplyContext(shape, "test", 10)), values


@pytest.mark.parametrize(
    ("name", "settings"), [("kasa", {"gamma": 1.0, "beta": 1.0}), ("monteclora", {"kl_loss_weight": 1.0})]
)
def test_a_penalty_is_part_of_the_loss_in_training_alone(name: str, settings: dict[str, Any]) -> None:
    import torch

    ids = torch.arange(5, 21).reshape(2, 8)
    heavy, light = (_wrapped(name, {key: size * value for key, value in settings.items()})[0] for size in (1.0, 1e-9))
    heavy.load_state_dict(light.state_dict())
    losses = {}
    for label, model in (("heavy", heavy), ("light", light)):
        torch.manual_seed(0)
        losses[label, "training"] = float(model.train()(input_ids=ids, labels=ids).loss)
        losses[label, "asked"] = float(model.eval()(input_ids=ids, labels=ids).loss)
    assert abs(losses["heavy", "training"] - losses["light", "training"]) > 1e-2
    assert losses["heavy", "asked"] == pytest.approx(losses["light", "asked"], abs=1e-5)


def test_eva_starts_at_the_leading_directions_of_the_data_and_once_alone() -> None:
    import torch

    model, values = _wrapped("eva", {"batches": 3})
    (look,) = host().method("eva").callbacks(values, ApplyContext(build("llama", 0, "causal_lm")[1], "test", 10))
    batches = [{"input_ids": torch.randint(5, 90, (4, 16)), "labels": torch.randint(5, 90, (4, 16))} for _ in range(3)]
    layer = model.base_model.model.model.layers[0].self_attn.q_proj
    seen: list[Any] = []
    hook = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].detach().reshape(-1, 32)))
    before = torch.get_rng_state()
    with torch.no_grad(), model.disable_adapter():
        for batch in batches:
            model(**batch)
    hook.remove()
    _, _, right = torch.linalg.svd(torch.cat(seen), full_matrices=False)
    look.on_train_begin(None, SimpleNamespace(global_step=0), None, model=model, train_dataloader=batches)
    assert torch.equal(torch.get_rng_state(), before)
    first = layer.lora_A["default"].weight.detach()
    assert torch.allclose(first.norm(dim=1), torch.ones(4), atol=1e-5)
    assert float((first[0] @ right[0]).abs()) > 0.9  # a start at random: about 0.2
    assert model.training
    other = [{"input_ids": torch.full((4, 16), 7)}]
    look.on_train_begin(None, SimpleNamespace(global_step=5), None, model=model, train_dataloader=other)
    assert torch.equal(layer.lora_A["default"].weight, first)


@pytest.mark.parametrize(
    ("kind", "targets", "reason"),
    [
        ("llama", "all-linear", None),
        ("bert", "all-linear", "the layers of bert cannot be told apart by their names, as peft does"),
        ("gpt2", "attention-qv", "peft's BD-LoRA does not take the transposed linear layers of gpt2"),
    ],
)
def test_bdlora_cuts_a_factor_of_each_layer(kind: str, targets: str, reason: str | None) -> None:
    head = "sequence_classification" if kind == "bert" else "causal_lm"
    method, shape = host().method("bdlora"), tiny_shape(kind, head)
    assert shape is not None
    values = resolve_values(method, shape, {"target_modules": targets})
    assert method.unsupported(shape, values) == reason
    if reason is None:
        model, real = build(kind, 0, head)
        wrapped = method.apply(model, values, ApplyContext(real, "test", 10))
        assert count_parameters(wrapped)[0] == method.trainable_parameters(real, values)


@pytest.mark.parametrize("name", ["hra", "adamss", "beft"])
def test_narrow_models_take_a_rate_of_their_own(name: str) -> None:
    method = host().method(name)
    assert isinstance(method, UpdateMethod)
    assert method.narrow_rate is not None
    for model, rate in (("roberta-base", method.narrow_rate), ("llama-3.2-3b", method.rate)):
        shape = shape_for(method, resolve_base_model(model).config)
        assert resolve_values(method, shape)["learning_rate"] == rate, model
        assert resolve_values(method, shape, {"learning_rate": 2e-3})["learning_rate"] == 2e-3
