"""What a run does when memory runs out: a real failed allocation, and the order of what is tried."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import peftselect
from peftselect.results import user_store
from peftselect.training import degrade, machine
from tests.test_interrupted import AtStep, order_of
from tests.test_run import arguments

#: memory for a part of the batch: the whole takes several times as much
MORE_BYTES = 40 * 2**20


class Limited:
    """An observer that lets this process have only so much memory more while it trains than when that begins.

    What comes before (a model is loaded, by threads that want stacks) is not limited: there a failure would have
    another name.
    """

    def __init__(self, more_bytes: int) -> None:
        self.more_bytes = more_bytes
        self.said: list[str] = []

    def stage(self, text: str) -> None:
        self.said.append(text)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = hard = resource.getrlimit(resource.RLIMIT_AS)[1]
        if text.startswith("training"):
            limit = pages * resource.getpagesize() + self.more_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))

    def progress(self, done: int, total: int, text: str = "") -> None:
        pass


def _run_limited(order: dict[str, Any], home: str, more_bytes: int, report: str) -> None:
    os.environ["PEFTSELECT_HOME"] = home
    observer = Limited(more_bytes)
    try:
        record = peftselect.run(**order, observer=observer).record.to_json()
    except degrade.RanOutError as error:
        record = {"error": error.message, "code": error.exit_code}
    Path(report).write_text(json.dumps({"record": record, "said": observer.said}))


def run_limited(order: dict[str, Any], folder: Path, more_bytes: int) -> dict[str, Any]:
    """Run in a process that may allocate ``more_bytes`` beyond what it has when training begins."""
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["peft", "datasets", "evaluate", "peftselect.training.job"])
    report = folder / "report.json"
    process = forks.Process(target=_run_limited, args=(order, str(folder / "home"), more_bytes, str(report)))
    process.start()
    process.join(300)
    return json.loads(report.read_text())


def large(folder: Path, model: Path, **settings: Any) -> dict[str, Any]:
    """An order whose batch of 256 long inputs takes far more than its model."""
    order = arguments(folder, "classification", model, "lora", max_length=256, batch_size=256, settings=settings)
    rows = [{"text": " ".join(f"w{(n * 7 + i) % 60}" for i in range(250)), "label": "ab"[n % 2]} for n in range(256)]
    for name in ("train", "evaluation", "test"):
        part = rows if name == "train" else [{**row, "text": f"{name} {row['text']}"} for row in rows[:4]]
        Path(order[name]).write_text("".join(json.dumps(row) + "\n" for row in part))
    return {**order, "allow_overlap": True, "max_steps": 1}


def test_a_failed_allocation_is_answered_by_a_smaller_micro_batch(
    tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    found = run_limited(large(tmp_path, tiny_models("bert")), tmp_path, MORE_BYTES)
    record, said = found["record"], found["said"]
    assert record["status"] == "ok"
    recipe, trail = record["candidate"]["recipe"], record["measured"]["trail"]
    assert trail[0] == "out of memory with micro-batch 256: went on with micro-batch 128, 2 accumulated"
    assert [line for line in said if line.startswith("out of memory")] == trail
    assert recipe["micro_batch_size"] < 256
    assert recipe["micro_batch_size"] * recipe["gradient_accumulation_steps"] == 256
    stored = user_records(tmp_path)
    assert sorted(item["status"] for item in stored) == ["ok", *["oom"] * len(trail)]
    assert {item["candidate"]["recipe"]["micro_batch_size"] for item in stored if item["status"] == "oom"} >= {256}


def user_records(folder: Path) -> list[dict[str, Any]]:
    """Every record in the home of a run."""
    return [json.loads(file.read_text()) for file in (folder / "home").rglob("results/*.json")]


class LimitedCard:
    """The same on a card: from the moment when training begins, ``more_bytes`` on top of what is reserved then.

    Without a limit it says by how much the reserved memory grew.
    """

    def __init__(self, more_bytes: int | None = None) -> None:
        self.more_bytes = more_bytes
        self.before: int | None = None

    @property
    def growth(self) -> int:
        assert self.before is not None
        return torch.cuda.max_memory_reserved() - self.before

    def stage(self, text: str) -> None:
        if not text.startswith("training") or self.before is not None:
            return
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        self.before = torch.cuda.memory_reserved()
        if self.more_bytes is not None:
            total = torch.cuda.get_device_properties(0).total_memory
            torch.cuda.set_per_process_memory_fraction((self.before + self.more_bytes) / total)

    def progress(self, done: int, total: int, text: str = "") -> None:
        pass


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
def test_a_failed_allocation_on_a_card_is_answered_too(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = {**large(tmp_path, tiny_models("bert")), "device": "auto"}
    free = LimitedCard()
    whole = peftselect.run(**{**order, "output": tmp_path / "whole"}, observer=free).record
    assert not whole.measured.get("trail")
    try:
        record = peftselect.run(**order, observer=LimitedCard(free.growth // 2)).record
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    recipe, first = record.candidate["recipe"], record.measured["trail"][0]
    assert first == "out of memory with micro-batch 256: went on with micro-batch 128, 2 accumulated"
    assert recipe["micro_batch_size"] * recipe["gradient_accumulation_steps"] == 256


def test_no_degrade_refuses(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    found = run_limited({**large(tmp_path, tiny_models("bert")), "degrade": False}, tmp_path, MORE_BYTES)
    assert found["record"] == {"error": "the device ran out of memory", "code": 3}
    assert [item["status"] for item in user_records(tmp_path)] == ["oom"]


def _ladder(plan: Any) -> list[tuple[int, int, bool, str | None, str]]:
    found = []
    while plan is not None:
        candidate = plan.chosen.candidate
        recipe = candidate.recipe
        layout = (recipe.micro_batch_size, recipe.gradient_accumulation_steps, recipe.gradient_checkpointing)
        found.append((*layout, recipe.quantization, candidate.method.name))
        plan = degrade.cheaper(plan)
    return found


def test_the_cheapest_change_is_tried_first(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", batch_size=6)
    assert _ladder(peftselect.plan_run(**order)) == [
        (6, 1, False, None, "lora"),
        (3, 2, False, None, "lora"),
        (1, 6, False, None, "lora"),
        (1, 6, True, None, "lora"),
        (1, 6, True, "nf4", "lora"),
    ]
    fixed = {**order, "settings": {"micro_batch_size": 2, "quantization": "none", "num_train_epochs": 1}}
    assert [step[:4] for step in _ladder(peftselect.plan_run(**fixed))] == [(2, 3, False, None), (2, 3, True, None)]


def test_a_recommended_method_gives_way_to_a_thriftier_one(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", quantization="none")
    plan = peftselect.plan_run(**{**order, "method": None})
    needs = {item.method: item.comparable_bytes for item in (plan.chosen, *plan.runners_up)}
    names = list(dict.fromkeys(step[-1] for step in _ladder(plan)))
    assert len(names) > 1
    assert [needs[name] for name in names] == sorted((needs[name] for name in names), reverse=True)


@pytest.mark.parametrize(("error", "counts"), [
    (torch.OutOfMemoryError("CUDA out of memory."), True),
    (MemoryError(), True),
    (RuntimeError("[enforce fail at alloc_cpu.cpp:1] DefaultCPUAllocator: can't allocate memory"), True),
    (RuntimeError("could not create a primitive"), True),
    (RuntimeError("could not create a primitive descriptor for a convolution"), False),
    (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    (ValueError("out of memory"), False),
])  # fmt: skip
def test_what_counts_as_out_of_memory(error: BaseException, counts: bool) -> None:
    assert machine.is_out_of_memory(error) is counts
    wrapped = peftselect.PeftSelectError("the model could not be loaded", "")
    wrapped.__cause__ = error
    assert machine.is_out_of_memory(wrapped) is counts


class Once:
    """Runs out of memory the first time that it is called."""

    def __init__(self) -> None:
        self.called = False

    def __call__(self) -> None:
        if not self.called:
            self.called = True
            raise torch.OutOfMemoryError("CUDA out of memory.")


def test_a_run_that_ran_out_late_goes_on_from_its_checkpoint(
    tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    class Telling(AtStep):
        said: list[str] = []  # noqa: RUF012

        def stage(self, text: str) -> None:
            super().stage(text)
            self.said.append(text)

    order = order_of(tmp_path, tiny_models("bert"), "lora", checkpoint_every="0.001s")
    observer = Telling(12, Once())
    record = peftselect.run(**order, observer=observer).record
    assert record.measured["steps"] == 20
    assert record.measured["trail"] == ["out of memory with micro-batch 8: went on with micro-batch 4, 2 accumulated"]
    assert any(line.endswith("for 20 steps (from step 11 on)") for line in observer.said)
    assert sorted(item.status for item in user_store().read()) == ["ok", "oom"]


def test_a_loss_that_explodes_ends_the_run(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    settings = {"num_train_epochs": 20, "learning_rate": 1.0}
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", settings=settings)
    with pytest.raises(peftselect.PeftSelectError) as caught:
        peftselect.run(**order)
    assert re.fullmatch(r"training diverged: the loss has risen from 0\.\d+ to \S+ by step \d+", caught.value.message)
    assert caught.value.hint == "lower the learning rate of 1, for example by ten: --set learning_rate=0.1"
    (record,) = user_store().read()
    assert record.status == "diverged"
    assert "the loss has risen" in record.note
    assert not Path(order["output"]).exists()
