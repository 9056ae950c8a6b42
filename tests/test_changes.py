"""What defines each of the methods that change the base's own weights, shown on tiny models."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import peftselect
from peftselect.method import ApplyContext, Method, resolve_values
from peftselect.modeling import AUTO_CLASSES, merge
from peftselect.plugin_manager import PluginHost
from peftselect.shape import ModelShape
from peftselect.testing.models import tiny_folder, tiny_shape
from peftselect.training.interrupts import Interrupted
from tests.test_interrupted import AtStep, order_of, signalled, weights

METHODS = PluginHost.load(external=False).methods()
OURS = [name for name, method in METHODS.items() if isinstance(method, peftselect.ChangeMethod)]
STEPS = 4


def base(kind: str, head: str = "causal_lm") -> tuple[Any, ModelShape]:
    import transformers

    shape = tiny_shape(kind, head)
    assert shape is not None
    return getattr(transformers, AUTO_CLASSES[head]).from_pretrained(tiny_folder(kind, head)), shape


def applied(
    name: str, kind: str = "llama", head: str = "causal_lm", total_steps: int = 2 * STEPS, **overrides: Any
) -> tuple[Any, ModelShape, Method]:
    import torch

    torch.manual_seed(0)
    model, shape = base(kind, head)
    method = METHODS[name]
    context = ApplyContext(shape, "test", total_steps)
    return method.apply(model, resolve_values(method, shape, overrides), context), shape, method


def change(model: Any) -> Any:
    return model.base_model.change("default")


def ids(seed: int = 8) -> Any:
    import torch

    return torch.randint(5, 90, (2, 7), generator=torch.Generator().manual_seed(seed))


def train(model: Any, method: Method, steps: int, values: Any = None, *, decay: float = 0.0, first: int = 0) -> None:
    """Steps on batches of their own, as the Trainer takes them."""
    import torch

    optimizer = method.optimizer(model, values or {}) if values else None
    trained = [item for item in model.parameters() if item.requires_grad]
    optimizer = optimizer or torch.optim.AdamW(trained, lr=1e-2, weight_decay=decay)
    hung_on = method.callbacks({}, ApplyContext(tiny_shape("llama", "causal_lm"), "test", 1))  # type: ignore[arg-type]
    model.train()
    for step in range(first, first + steps):
        model(input_ids=ids(step), labels=ids(step)).loss.backward()
        for event in ("on_pre_optimizer_step", "step", "on_optimizer_step"):
            if event == "step":
                optimizer.step()
                continue
            for item in hung_on:
                getattr(item, event)(None, SimpleNamespace(global_step=step), None, model=model, optimizer=optimizer)
        optimizer.zero_grad()


def differences(model: Any, kind: str = "llama", head: str = "causal_lm") -> dict[str, Any]:
    """What merging changes of each parameter."""
    plain = dict(base(kind, head)[0].named_parameters())
    return {name: item.detach() - plain[name] for name, item in merge(model).named_parameters()}


def gradients(square: bool) -> dict[str, Any]:
    """Gradients of the plain model over the batches of :func:`train`, summed."""
    import torch

    model, _ = base("llama")
    total = {name: torch.zeros_like(item) for name, item in model.named_parameters()}
    for step in range(STEPS):
        model.zero_grad()
        model.train()(input_ids=ids(step), labels=ids(step)).loss.backward()
        for name, item in model.named_parameters():
            total[name] += item.grad.square() if square else item.grad
    return total


def test_there_are_methods_of_the_kind() -> None:
    assert len(OURS) >= 9


@pytest.mark.parametrize("kind", ["llama", "gpt2", "t5"])
def test_a_random_mask_takes_the_same_share_of_each_tensor(kind: str) -> None:
    head = "seq2seq_lm" if kind == "t5" else "causal_lm"
    model, _, _ = applied("random_mask", kind, head, density=0.1)
    found, start = change(model).index.long(), 0
    assert len(found.unique()) == len(found)
    for slot in change(model).slots.values():
        inside = int(((found >= start) & (found < start + slot.size)).sum())
        assert abs(inside - 0.1 * slot.size) <= 1, slot.name
        start += slot.size


def test_magnitude_pruning_trains_the_largest_weights() -> None:
    model, _, method = applied("magnitude_pruning", density=0.1)
    train(model, method, 2)
    plain = dict(base("llama")[0].named_parameters())
    for name, moved in differences(model).items():
        if plain[name].dim() == 2 and (moved != 0).any():
            size = plain[name].abs()
            assert size[moved != 0].min() >= size.flatten().kthvalue(int(0.85 * size.numel())).values, name


def test_weight_decay_leaves_alone_what_is_not_chosen() -> None:
    model, shape, method = applied("random_mask", density=0.05)
    before = {name: item.detach().clone() for name, item in model.named_parameters() if not item.requires_grad}
    train(model, method, 3, decay=0.5)
    assert all((item == before[name]).all() for name, item in model.named_parameters() if name in before)
    changed = sum(int((item != 0).sum()) for item in differences(model).values())
    assert 0 < changed <= method.trainable_parameters(shape, {"density": 0.05})


def test_sam_chooses_in_each_tensor_by_the_summed_gradients_of_the_base() -> None:
    import torch

    model, _, method = applied("sam", density=0.1, search_share=0.5)
    assert model.base_model.unsettled
    train(model, method, STEPS)
    assert not model.base_model.unsettled
    assert (change(model).values == 0).all(), "what the search has moved is put back"
    chosen = change(model).index.long()
    for number, slot in change(model).slots.items():
        start = change(model).starts[number]
        inside = chosen[(chosen >= start) & (chosen < start + slot.size)] - start
        rank = gradients(square=False)[slot.name].abs().flatten()
        assert torch.allclose(rank[inside].sort().values, rank.topk(len(inside)).values.sort().values), slot.name
    train(model, method, 2, first=STEPS)
    assert sum(int((item != 0).sum()) for item in differences(model).values()) > 0.5 * len(chosen)


def test_child_tuning_chooses_among_all_tensors_by_the_squares() -> None:
    import torch

    model, _, method = applied("child_tuning_d", density=0.3, search_share=0.5)
    train(model, method, STEPS)
    found = gradients(square=True)
    line = torch.cat([found[slot.name].flatten() for slot in change(model).slots.values()])
    assert torch.allclose(line[change(model).index.long()].sum(), line.topk(len(change(model).index)).values.sum())


def test_scores_are_gone_when_the_places_are_chosen() -> None:
    model, _, method = applied("sam", search_share=0.5)
    assert change(model).score.numel() == change(model).numbers
    train(model, method, STEPS)
    assert change(model).score is None
    assert "score" not in " ".join(name for name, _ in model.named_buffers())


def test_mixout_drops_the_change_while_training_and_no_table_or_vector() -> None:
    import torch

    model, _, _ = applied("mixout", "bert", "sequence_classification", mix=0.75)
    slots = {slot.name: slot for slot in change(model).slots.values()}
    matrix, table, vector = (slots[f"bert.{name}"] for name in (
        "encoder.layer.0.attention.self.query.weight", "embeddings.word_embeddings.weight",
        "encoder.layer.0.attention.self.query.bias"))  # fmt: skip
    for slot in (matrix, table, vector):
        torch.nn.init.constant_(change(model).delta(slot), 1.0)
    with torch.no_grad():
        model.train()
        moved = {slot.name: change(model).changed(slot, slot.parameter) - slot.parameter for slot in slots.values()}
        model.eval()
        still = change(model).changed(matrix, matrix.parameter) - matrix.parameter
    drawn = moved[matrix.name]
    assert set(drawn.round(decimals=3).unique().tolist()) == {0.0, 4.0}
    assert 0.2 < float((drawn > 1).float().mean()) < 0.3
    for item in (moved[table.name], moved[vector.name], still):
        assert torch.allclose(item, torch.ones_like(item), atol=1e-5)


def test_child_pruning_leaves_the_largest_changes_every_few_steps() -> None:
    import torch

    model, shape, method = applied("child_pruning", density=0.01, prunings=2)
    kept = round(0.01 * shape.total_parameters)
    train(model, method, STEPS - 1)
    before = torch.cat([item.detach().flatten() for item in change(model).parameters()])
    assert int((before != 0).sum()) > 0.5 * shape.total_parameters
    train(model, method, 1, first=STEPS - 1)
    after = torch.cat([item.detach().flatten() for item in change(model).parameters()])
    assert 0 < int((after != 0).sum()) <= kept


@pytest.mark.parametrize("name", ["child_pruning", "sparse_finetuning", "diff_pruning"])
def test_evaluation_sees_what_would_be_kept(name: str) -> None:
    model, shape, method = applied(name, density=0.01, total_steps=40)
    train(model, method, 2)
    assert sum(int((item != 0).sum()) for item in differences(model).values()) <= round(0.01 * shape.total_parameters)


def test_sparse_finetuning_begins_anew_where_the_first_pass_moved_most() -> None:
    import torch

    model, shape, method = applied("sparse_finetuning", density=0.05)
    train(model, method, STEPS - 1)
    assert model.base_model.unsettled
    train(model, method, 1, first=STEPS - 1)
    assert not model.base_model.unsettled
    assert all((item == 0).all() for item in change(model).parameters())
    places = change(model).index.clone()
    assert len(places.unique()) == round(0.05 * shape.total_parameters)
    train(model, method, 2, first=STEPS)
    line = torch.cat([item.detach().flatten() for item in change(model).parameters()])
    outside = torch.ones(len(line), dtype=torch.bool)
    outside[places.long()] = False
    assert (line[outside] == 0).all()
    assert (line[places.long()] != 0).float().mean() > 0.5
    assert torch.equal(places, change(model).index)


def test_the_optimizer_forgets_the_first_pass() -> None:
    import torch

    model, _, _ = applied("sparse_finetuning", density=0.05)
    optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad])
    model.train()
    for step in range(STEPS):
        model(input_ids=ids(step), labels=ids(step)).loss.backward()
        optimizer.step()
        assert optimizer.state
        model.base_model.advance(optimizer)
        optimizer.zero_grad()
    assert not optimizer.state


def test_the_penalty_closes_gates_that_nothing_holds_open() -> None:
    import torch

    model, shape, method = applied("diff_pruning", density=0.05, total_steps=200)
    values = resolve_values(method, shape, {"penalty": 1e-3, "learning_rate": 1e-2, "gate_learning_rate": 0.5})
    change(model).config.penalty = 1e-3
    opened = torch.cat([item.detach().flatten() for name, item in change(model).named_parameters() if "gate" in name])
    assert (opened == 5).all()
    train(model, method, 30, values)
    gates = torch.cat([item.detach().flatten() for name, item in change(model).named_parameters() if "gate" in name])
    assert gates.mean() < 0
    assert gates.max() > gates.min() + 1


def test_gates_have_the_gradients_of_their_formula() -> None:
    import torch

    from peftselect.tuners.dense_changes import _Gated

    torch.manual_seed(0)
    weight, delta, gate = (torch.randn(6, 5, dtype=torch.float64) for _ in range(3))
    delta.requires_grad_()
    gate.requires_grad_()
    torch.manual_seed(4)
    _Gated.apply(weight, delta, gate).pow(2).sum().backward()
    torch.manual_seed(4)
    drawn = torch.rand(6, 5, dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    own, its = (item.detach().clone().requires_grad_() for item in (delta, gate))
    opened = (torch.sigmoid(torch.logit(drawn) + its) * 3 - 1.5).clamp(0, 1)
    (weight + own * opened).pow(2).sum().backward()
    assert torch.allclose(delta.grad, own.grad)
    assert torch.allclose(gate.grad, its.grad)
    assert 0 < int((its.grad != 0).sum()) < 30


def test_layerwise_changes_the_last_block_alone() -> None:
    import torch

    model, shape, _ = applied("layerwise", "bert", "sequence_classification")
    for item in change(model).parameters():
        torch.nn.init.normal_(item)
    assert sum(item.numel() for item in change(model).parameters()) == shape.block_parameters[0]
    moved = {name for name, item in differences(model, "bert", "sequence_classification").items() if (item != 0).any()}
    assert moved == {name for name, _ in base("bert", "sequence_classification")[0].named_parameters()
                     if ".layer.1." in name}  # fmt: skip
    whole = METHODS["layerwise"]
    assert "of 2 blocks the first must stay" in str(
        whole.unsupported(shape, resolve_values(whole, shape, {"blocks": 2}))
    )


def test_a_tied_matrix_is_changed_where_words_are_read_and_written() -> None:
    import torch

    model, _, _ = applied("mixout", "gpt2")
    table = next(slot for slot in change(model).slots.values() if slot.name.endswith("wte.weight"))
    assert len(table.places) == 2
    torch.nn.init.normal_(change(model).delta(table))
    inner = model.get_base_model().eval()
    assert torch.equal(inner.lm_head.weight, inner.transformer.wte.weight)
    assert not torch.equal(inner.lm_head.weight, table.parameter)
    merged = merge(model)
    assert merged.lm_head.weight is merged.transformer.wte.weight
    assert type(merged.lm_head) is torch.nn.Linear


@pytest.mark.parametrize("name", ["random_mask", "child_pruning"])
def test_the_file_holds_numbers_and_their_places(name: str, tmp_path: Path) -> None:
    from peft import PeftModel
    from safetensors.torch import load_file

    model, shape, method = applied(name, density=0.01)
    train(model, method, 2)
    model.save_pretrained(tmp_path)
    saved = {key.rpartition(".")[2]: item for key, item in load_file(tmp_path / "adapter_model.safetensors").items()}
    assert set(saved) == {"values", "index"}
    assert len(saved["values"]) == len(saved["index"]) == round(0.01 * shape.total_parameters)
    assert (saved["index"].diff() > 0).all()
    again = PeftModel.from_pretrained(base("llama")[0], tmp_path, is_trainable=True)
    train(again, method, 1)
    assert len(differences(again)) == len(differences(model))
    quiet = PeftModel.from_pretrained(base("llama")[0], tmp_path)
    assert sum(item.numel() for item in change(quiet).parameters()) == len(saved["values"])


def test_an_adapter_that_is_trained_on_keeps_its_places(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    model, _, method = applied("sam", density=0.01, search_share=0.5)
    train(model, method, STEPS + 1)
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base("llama")[0], tmp_path, is_trainable=True)
    assert not again.base_model.unsettled
    train(again, method, STEPS, first=20)
    assert torch.equal(change(again).index, change(model).index)
    assert not torch.equal(change(again).values, change(model).values)


def test_merging_in_place_is_undone() -> None:
    import torch

    model, _, method = applied("random_mask", density=0.1)
    train(model, method, 2)
    model.eval()
    with torch.no_grad():
        own = model(ids()).logits
        model.merge_adapter(safe_merge=True)
        assert torch.allclose(model(ids()).logits, own, atol=1e-6)
        model.unmerge_adapter()
        assert torch.allclose(model(ids()).logits, own, atol=1e-6)
        plain = model.unload()
        assert torch.allclose(plain(ids()).logits, base("llama")[0].eval()(ids()).logits, atol=1e-6)
    with pytest.raises(ValueError, match="the adapter seems to be broken"):
        applied_broken().merge_adapter(safe_merge=True)


def applied_broken() -> Any:
    import torch

    model, _, _ = applied("random_mask", density=0.1)
    torch.nn.init.constant_(change(model).values, float("nan"))
    return model


def test_an_adapter_of_another_base_is_refused() -> None:
    from peft import get_peft_model

    method = METHODS["random_mask"]
    other = tiny_shape("gpt2", "causal_lm")
    assert other is not None
    config = method.peft_config(other, resolve_values(method, other), ApplyContext(other, "test", 1))
    with pytest.raises(ValueError, match="the parameters that may change have"):
        get_peft_model(base("llama")[0], config)


@pytest.mark.parametrize(
    ("name", "settings"), [("sam", {"search_share": 0.5}), ("sparse_finetuning", {}), ("diff_pruning", {})]
)
def test_a_run_that_is_stopped_before_the_choice_goes_on_exactly(
    name: str, settings: dict[str, Any], tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    order = order_of(tmp_path, tiny_models("bert"), name)
    order["settings"] = {**order["settings"], **settings}
    whole = peftselect.run(**{**order, "output": tmp_path / "whole"})
    assert whole.record.measured["best_step"] >= 10, "nothing is the best before the places are chosen"
    with pytest.raises(Interrupted):
        peftselect.run(**order, observer=AtStep(6, signalled(signal.SIGTERM)))
    result = peftselect.resume(order["output"])
    assert weights(result.output) == weights(whole.output)
    assert result.record.scores == whole.record.scores


def test_parts_of_places_that_are_gone_are_no_parts_of_new_ones() -> None:
    import torch

    from peftselect.tuners.changes import Bounds

    bounds = Bounds([0, 10, 20])
    for first in range(11):  # memory that one tensor leaves is likely the next one's, and with it its identity
        places = torch.cat([torch.arange(first), torch.arange(10, 20 - first)]).int()
        assert bounds.of(places, 0) == (0, first)
        del places
