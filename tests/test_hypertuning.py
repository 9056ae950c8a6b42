"""HyperTuning in its reduced form: what the base makes of the examples, and that the prefix is read off them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import peftselect
from peftselect.method import ApplyContext, resolve_values
from peftselect.plugin_manager import host
from peftselect.testing.models import auto_class, tiny_folder, tiny_shape
from tests.test_run import arguments


def applied(kind: str, head: str, batch: dict[str, torch.Tensor] | None, **overrides: Any) -> Any:
    method, shape = host().method("hypertuning"), tiny_shape(kind, head)
    assert shape is not None
    model = auto_class(shape).from_pretrained(tiny_folder(kind, head))
    values = resolve_values(method, shape, {"examples": 3, "inner_width": 8, "num_virtual_tokens": 4, **overrides})
    torch.manual_seed(0)
    return method.apply(model, values, ApplyContext(shape, "test", 1, examples=batch)).eval()


def rows(number: int, labels: torch.Tensor) -> dict[str, torch.Tensor]:
    ids = torch.randint(5, 90, (number, 7), generator=torch.Generator().manual_seed(4))
    mask = torch.ones_like(ids)
    mask[-1, 4:] = 0
    return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def states(model: Any) -> torch.Tensor:
    found: torch.Tensor = model.base_model.shared("memory", "default").states
    return found


def test_the_examples_are_what_the_frozen_base_makes_of_them_with_their_labels() -> None:
    batch = rows(3, torch.tensor([0, 2, 1]))
    model = applied("bert", "sequence_classification", batch)
    with torch.no_grad(), model.disable_adapter():
        last = model.get_base_model().bert(batch["input_ids"], batch["attention_mask"]).last_hidden_state
    mask = batch["attention_mask"].unsqueeze(-1)
    mean = (last * mask).sum(1) / mask.sum(1)
    expected = torch.nn.functional.layer_norm(mean, mean.shape[-1:])
    assert torch.allclose(states(model)[:, :-3], expected, atol=1e-5)
    assert torch.equal(states(model)[:, -3:], torch.eye(3)[[0, 2, 1]])


def test_of_a_text_to_be_written_the_answer_counts_and_few_rows_are_repeated() -> None:
    batch = rows(2, torch.tensor([[7, 8, 1], [9, 1, -100]]))
    first = states(applied("t5", "seq2seq_lm", batch))
    assert torch.equal(first[0], first[2])
    other = states(applied("t5", "seq2seq_lm", {**batch, "labels": torch.tensor([[8, 8, 1], [9, 1, -100]])}))
    assert not torch.allclose(first[0], other[0], atol=1e-3)
    assert torch.allclose(first[1], other[1], atol=1e-5)


def test_numbers_and_several_labels_are_told_as_they_are() -> None:
    several = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    assert torch.equal(states(applied("bert", "sequence_classification", rows(3, several)))[:, -3:], several)


def test_the_prefix_depends_on_the_examples_and_training_reads_half_of_them() -> None:
    batch = rows(3, torch.tensor([0, 2, 1]))
    model = applied("bert", "sequence_classification", batch)
    asked = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    with torch.no_grad():
        before = model(**asked).logits
        states(model).mul_(-1)
        assert not torch.allclose(model(**asked).logits, before, atol=1e-5)
    model.train()
    model(**asked)
    assert model.base_model.chosen.shape == (2,)
    with torch.no_grad():
        states(model).mul_(-1)
        assert torch.allclose(model.eval()(**asked).logits, before, atol=1e-5), "evaluation reads all of them again"


@pytest.mark.parametrize(
    ("kind", "task"), [("bert", "classification"), ("bert", "similarity"), ("llama", "text_generation")]
)
def test_a_run_keeps_what_the_base_made_of_training_rows(
    kind: str, task: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = {"num_train_epochs": 1, "examples": 4, "inner_width": 8}
    result = peftselect.run(**arguments(tmp_path, task, tiny_models(kind), "hypertuning", settings=settings))
    saved = load_file(result.output / "adapter_model.safetensors")
    kept = next(item for name, item in saved.items() if name.endswith("psel_examples_memory.states"))
    assert len(kept) == 4
    assert kept.std(dim=1).min() > 0.1
    assert len(kept.unique(dim=0)) == 4
