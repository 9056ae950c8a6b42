"""Tuners of peft that give each layer an update: what they refuse, keep whatever the batch is, and add to the loss."""

from __future__ import annotations

from typing import Any

import pytest

from peftselect.memory.closed_form import estimate_memory
from peftselect.method import Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.testing.models import tiny_shape

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
