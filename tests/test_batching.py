"""Rows of like length share a batch, every row once an epoch, in another order each time."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect.batching import grouped_order
from tests.test_run import arguments

LENGTHS = [random.Random(number).randint(5, 400) for number in range(1000)]


def batches_of(lengths: list[int], batch_size: int, seed: int) -> list[list[int]]:
    """The batches of one epoch."""
    order = grouped_order(lengths, batch_size, seed)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def padding(lengths: list[int], batches: list[list[int]]) -> float:
    """Share of the positions that are padding."""
    positions = sum(max(lengths[row] for row in batch) * len(batch) for batch in batches)
    return 1 - sum(lengths) / positions


@pytest.mark.parametrize(("rows", "batch_size"), [(1000, 8), (1000, 7), (37, 8), (8, 8), (3, 8), (1, 1), (0, 4)])
def test_every_row_is_drawn_once_and_only_the_last_batch_is_short(rows: int, batch_size: int) -> None:
    lengths = LENGTHS[:rows]
    assert sorted(grouped_order(lengths, batch_size, 0)) == list(range(rows))
    assert [len(batch) for batch in batches_of(lengths, batch_size, 0)][:-1] == [batch_size] * max(
        -(-rows // batch_size) - 1, 0
    )


def test_little_is_padding() -> None:
    order = list(range(1000))
    random.Random(0).shuffle(order)
    plain = [order[start : start + 8] for start in range(0, 1000, 8)]
    assert padding(LENGTHS, plain) > 0.3
    assert padding(LENGTHS, batches_of(LENGTHS, 8, 0)) < 0.05


def test_the_longest_comes_first_and_batches_are_in_no_order_of_length() -> None:
    batches = batches_of(LENGTHS, 8, 3)
    assert max(LENGTHS[row] for row in batches[0]) == max(LENGTHS)
    means = [sum(LENGTHS[row] for row in batch) / len(batch) for batch in batches[:50]]
    falls = sum(before > after for before, after in itertools.pairwise(means))
    assert 15 < falls < 35  # half of 49, were they shuffled; 49, were they sorted


def test_seeds_and_epochs_differ_and_repeat() -> None:
    assert grouped_order(LENGTHS, 8, 1) == grouped_order(LENGTHS, 8, 1)
    assert grouped_order(LENGTHS, 8, 1) != grouped_order(LENGTHS, 8, 2)
    first, second = (set(map(frozenset, batches_of(LENGTHS, 8, seed))) for seed in (1, 2))
    assert len(first & second) < len(first) / 2  # other batches, not only another order of the same


def test_a_run_pads_less_and_can_be_told_not_to(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The Trainer's own batches, as the model sees them; an epoch has every row, however it is drawn."""
    from peftselect.training.trainer import TaskTrainer

    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", batch_size=4, seed=3)
    rows = [
        {"text": " ".join(f"w{n % 40}" for n in range(1 + 7 * (k % 5))), "label": ("positive", "negative")[k % 2]}
        for k in range(80)
    ]
    Path(order["train"]).write_text("".join(json.dumps(row) + "\n" for row in rows))
    masks: list[Any] = []
    step = TaskTrainer.training_step

    def watched(self: Any, model: Any, inputs: Any, *more: Any) -> Any:
        masks.append(inputs["attention_mask"])
        return step(self, model, inputs, *more)

    monkeypatch.setattr(TaskTrainer, "training_step", watched)
    padding = {}
    for grouped in ("true", "false"):
        masks.clear()
        settings = {"group_by_length": grouped, "num_train_epochs": 1}
        output = tmp_path / f"out-{grouped}"
        record = peftselect.run(**{**order, "settings": settings, "output": output, "allow_overlap": True}).record
        assert record.candidate["recipe"]["group_by_length"] is (grouped == "true")
        assert sum(len(mask) for mask in masks) == len(rows)
        padding[grouped] = 1 - sum(int(mask.sum()) for mask in masks) / sum(mask.numel() for mask in masks)
    assert padding["true"] < 0.2 < 0.3 < padding["false"], padding
