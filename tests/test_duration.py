"""Training time: how it scales, how wide its interval is, and what published times say of it."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from peftselect.api import build_problem
from peftselect.duration import Interval, peak_teraflops, predict_train_seconds
from peftselect.method import Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.problem import GIB, DataProfile, Hardware, Problem
from peftselect.record import RunRecord
from peftselect.resources import shipped

MEASURED = Path(__file__).parents[2] / "shared" / "measurements" / "peft_metamathqa.csv"
RECIPE = Recipe("bf16", None, 8, 1, False, 3e-4, 3.0, 512, 128)
A100 = Hardware(80 * GIB, name="NVIDIA A100-SXM4-80GB")


def problem(model: str = "flan-t5-base", task: str = "summarization", machine: Hardware = A100) -> Problem:
    """10,000 examples on a device."""
    asked = build_problem(task, model, vram_gib=80, num_examples=10_000, source_tokens=300, target_tokens=40)
    return replace(asked, hardware=machine)


def seconds(method: str, asked: Problem | None = None, recipe: Recipe = RECIPE, **settings: Any) -> Interval:
    """The prediction for a method."""
    asked = asked or problem()
    chosen = host().method(method)
    found = predict_train_seconds(asked, chosen, resolve_values(chosen, asked.shape, settings), recipe)
    assert found is not None
    return found


def test_the_value_lies_inside_a_wide_interval() -> None:
    found = seconds("lora", problem("flan-t5-xl"))
    assert found.low < found.value < found.high
    assert found.high > 3 * found.low


def test_an_unknown_card_widens_the_interval() -> None:
    known = seconds("lora", problem("flan-t5-xl"))
    unknown = seconds("lora", problem("flan-t5-xl", machine=Hardware(80 * GIB, name="Some Other Accelerator")))
    unnamed = seconds("lora", problem("flan-t5-xl", machine=Hardware(80 * GIB)))
    assert unknown == unnamed
    assert unknown.high / unknown.low > 4 * known.high / known.low


def test_without_device_or_data_there_is_no_prediction() -> None:
    method = host().method("lora")
    for asked in (problem(machine=Hardware()), replace(problem(), data=DataProfile())):
        assert predict_train_seconds(asked, method, resolve_values(method, asked.shape), RECIPE) is None


def test_a_cpu_is_slower_than_a_card() -> None:
    assert seconds("lora", problem(machine=Hardware(name="cpu"))).low > seconds("lora").high


@pytest.mark.parametrize(("slower", "faster"), [
    ({"num_train_epochs": 6.0}, {}),
    ({"gradient_checkpointing": True}, {}),
    ({"quantization": "nf4"}, {}),
    ({"precision": "fp32"}, {}),
])  # fmt: skip
def test_what_takes_longer(slower: dict[str, Any], faster: dict[str, Any]) -> None:
    asked = problem("flan-t5-xl")
    more, less = (seconds("lora", asked, replace(RECIPE, **change)) for change in (slower, faster))
    assert more.value > less.value


def test_full_finetuning_is_slower_than_lora_and_the_head_alone_is_fastest() -> None:
    asked = problem("roberta-large", "classification")
    full, lora, head = (seconds(name, asked).value for name in ("full_finetuning", "lora", "head_only"))
    assert full > lora > head


def test_small_models_wait_for_the_card() -> None:
    short, large = (seconds("lora", problem("flan-t5-small"), replace(RECIPE, micro_batch_size=n)) for n in (1, 64))
    assert short.value > 5 * large.value


def test_every_device_of_the_table_is_told_from_the_others() -> None:
    table = peak_teraflops()
    assert len(table) > 15
    speeds = {name: seconds("lora", problem("flan-t5-xl", machine=Hardware(80 * GIB, name=f"NVIDIA {name} 80GB")))
              for name in ("L4", "L40", "L40S", "A10", "A10G", "A100")}  # fmt: skip
    order = sorted(speeds, key=lambda name: speeds[name].value)
    assert order == sorted(speeds, key=lambda name: -table[name])


def test_ratios_of_the_thesis_lie_within_the_intervals() -> None:
    """Table 2.10: hours to convergence, so that steps differ as well; the intervals must be wide enough for most."""
    lines = shipped("benchmarks", "results", "thesis", "table_2_10.jsonl").read_text("utf-8").splitlines()
    records = [RunRecord.from_json(json.loads(line)) for line in lines]
    hours = {(item.problem["dataset"], item.candidate["method"]): item.measured["train_seconds"] for item in records}
    datasets = {dataset for dataset, _ in hours}
    assert len(datasets) >= 7
    asked = problem("roberta-base", "classification")
    full, inside = seconds("full_finetuning", asked), []
    for method in ("lora", "bitfit"):
        found = seconds(method, asked)
        for dataset in datasets:
            ratio = hours[dataset, method] / hours[dataset, "full_finetuning"]
            inside.append(found.low / full.high < ratio < found.high / full.low)
    assert sum(inside) >= 0.8 * len(inside)


def test_published_times_lie_within_the_intervals() -> None:
    if not MEASURED.is_file():
        pytest.skip(f"the published measurements are not here (looked for {MEASURED})")
    names = {"lora": "lora", "ia3": "ia3", "full": "full_finetuning", "adalora": "adalora", "prompt_tuning": "prompt",
             "p_tuning": "p_tuning"}  # fmt: skip
    asked = replace(
        problem("llama-3.2-3b", "text_generation", Hardware(48 * GIB, name="NVIDIA L40S")),
        data=DataProfile(20_000, source_tokens_p50=237, target_tokens_p50=0),  # 237: mean padded length of the runs
    )
    recipe = replace(RECIPE, micro_batch_size=4, num_train_epochs=1.0, max_length=768, max_target_length=0)
    with MEASURED.open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["method"] in names]
    assert len(rows) > 8
    for row in rows:
        settings = {"num_virtual_tokens": 200} if row["method"] == "prompt_tuning" else {}
        found = seconds(names[row["method"]], asked, recipe, **settings)
        assert found.low < float(row["train_seconds"]) < found.high, row["experiment"]
