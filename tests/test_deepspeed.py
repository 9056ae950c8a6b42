"""Runs of two processes under DeepSpeed: one process's weights, states that really are shared, nothing unpickled."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import peftselect
from peftselect import api
from peftselect.errors import PeftSelectError, UnsupportedError
from peftselect.training import ranks
from tests.test_processes import (
    SETTINGS,
    WHOLE,
    assert_alike,
    assert_sharing_goes_on,
    started,
    without_dropout,
    words,
)
from tests.test_run import arguments

installed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed (the extra deepspeed) is not installed"
)

ASKED = """
compute_environment: LOCAL_MACHINE
distributed_type: DEEPSPEED
deepspeed_config:
  {}
num_machines: 1
num_processes: 2
use_cpu: true
"""


def sharing(folder: Path, stage: int, **more: Any) -> tuple[str, ...]:
    """accelerate's launcher, with a file that asks for DeepSpeed; ``more`` settings of ZeRO lie in a file of their
    own."""
    settings = f"zero_stage: {stage}"
    if more:
        settings = f"deepspeed_config_file: {folder / 'zero.json'}"
        (folder / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": stage, **more}}))
    (folder / "accelerate.yaml").write_text(ASKED.format(settings))
    file = str(folder / "accelerate.yaml")
    return ("-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file", file)


#: says on standard error what the first process has of the optimizer and of the weights while it trains
WATCHED = """
import sys
from peftselect.cli import main
from peftselect.training import callbacks, ranks

def tell(self, args, state, control, model=None, optimizer=None, **_):
    if ranks.is_first() and state.global_step == 3:
        zero = optimizer.optimizer
        masters = getattr(zero, "fp32_partitioned_groups_flat", None) or zero.single_partition_of_fp32_groups
        away = [item for item in model.parameters() if item.numel() == 0]
        held = sum(getattr(item, "ds_tensor", item).numel() for item in model.parameters())
        print("held", sum(item.numel() for item in masters), held, len(away), file=sys.stderr)

callbacks.WatchMemory.on_step_begin = tell
main(sys.argv[1:])
"""


@installed
@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "more", "task", "kind", "method"),
    [
        (2, {}, "classification", "bert", "lora"),
        (3, {"stage3_param_persistence_threshold": 0}, "classification", "bert", "lora"),
        (3, {"stage3_param_persistence_threshold": 0}, "classification", "bert", "qlora"),
        (1, {"offload_optimizer": {"device": "cpu"}}, "classification", "bert", "prompt_tuning"),
        (3, {"stage3_param_persistence_threshold": 0}, "summarization", "t5", "full_finetuning"),
    ],
)
def test_processes_under_deepspeed_end_as_one(
    stage: int, more: dict[str, Any], task: str, kind: str, method: str,
    tiny_models: Callable[[str], Path], tmp_path: Path,
) -> None:  # fmt: skip
    model, home = without_dropout(tiny_models(kind), tmp_path), tmp_path / "home"
    settings = SETTINGS if method in ("lora", "qlora") else WHOLE
    (tmp_path / "script.py").write_text(WATCHED)
    command = words(tmp_path, model, "two", task=task, method=method, settings=settings)
    process = started(sharing(tmp_path, stage, **more), [str(tmp_path / "script.py"), *command], home)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert f"optimizer states by DeepSpeed (ZeRO-{stage})" in out
    order = arguments(tmp_path, task, model, method, settings={**settings, "micro_batch_size": 4}, batch_size=8)
    one = peftselect.run(**{**order, "output": tmp_path / "one"})
    assert_alike(tmp_path / "two", one.output, 1e-5)
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["scores"][record["metric"]]["value"] == pytest.approx(one.record.scores[record["metric"]].value)
    measured = one.record.measured
    assert {name: record["measured"][name] for name in ("steps", "total_parameters", "trainable_parameters")} == {
        name: measured[name] for name in ("steps", "total_parameters", "trainable_parameters")
    }
    assert record["measured"]["train_flops"] == pytest.approx(measured["train_flops"], rel=0.2)
    assert len(list((home / "results").rglob("*.json"))) == 1
    masters, held, away = map(int, next(line.split()[1:] for line in err.splitlines() if line.startswith("held ")))
    assert 0.45 * measured["trainable_parameters"] < masters < 0.6 * measured["trainable_parameters"]
    if stage == 3:
        assert away > 20 and held < 0.6 * measured["total_parameters"]


@installed
@pytest.mark.slow
@pytest.mark.parametrize(("stage", "more"), [(2, {}), (3, {"stage3_param_persistence_threshold": 500})])
def test_processes_under_deepspeed_go_on(
    stage: int, more: dict[str, Any], tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    model = without_dropout(tiny_models("bert"), tmp_path)
    assert_sharing_goes_on(sharing(tmp_path, stage, **more), model, tmp_path)


@pytest.fixture
def asks(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[str, str]]:
    """``asks(stage, method)``: the last note of a plan of two processes under DeepSpeed, or an error and its hint."""

    def ask(stage: int = 2, method: str = "lora", processes: int = 2, found: bool = True, **more: Any) -> Any:
        settings, chosen = more.pop("settings", {}), more.pop("chosen", {})
        monkeypatch.setattr(ranks, "count", lambda: processes)
        monkeypatch.setattr(ranks, "agreed", lambda settle, cpu: settle())
        find = importlib.util.find_spec
        spec = find("accelerate") if found else None
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *rest: spec if name == "deepspeed" else find(name, *rest)
        )
        monkeypatch.setenv(ranks.DEEPSPEED, "true")
        monkeypatch.setenv("ACCELERATE_DEEPSPEED_ZERO_STAGE", str(stage))
        if settings or more:
            (tmp_path / "zero.json").write_text(json.dumps({"zero_optimization": {"stage": stage, **settings}, **more}))
            monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "zero.json"))
        order = arguments(tmp_path, "classification", tiny_models("bert"), method, settings=chosen, batch_size=8)
        try:
            plan = peftselect.plan_run(**order)
        except PeftSelectError as error:
            return error.message, error.hint
        return plan.notes[-1], plan.problem.hardware.sharding

    return ask


@pytest.mark.parametrize(
    ("stage", "shared"),
    [
        (1, "optimizer states"),
        (2, "gradients and optimizer states"),
        (3, "weights, gradients and optimizer states"),
    ],
)
def test_a_plan_says_what_deepspeed_shares(stage: int, shared: str, asks: Callable[..., tuple[str, str]]) -> None:
    note = f"2 processes share each batch, and {shared} by DeepSpeed (ZeRO-{stage})"
    assert asks(stage) == (note, f"zero{stage}")
    assert asks(stage, settings={"stage3_param_persistence_threshold": 0}) == (note, f"zero{stage}")


LEAVE_OUT = "leave out DeepSpeed, or choose --method lora"


@pytest.mark.parametrize(
    ("how", "message", "hint"),
    [
        ({"found": False}, "DeepSpeed is not installed", "pip install 'peftselect[deepspeed]'"),
        ({"processes": 1}, "DeepSpeed is for several processes", "add --num_processes 2, or leave out DeepSpeed"),
        ({"stage": 0}, "DeepSpeed shares nothing under zero_stage 0", "write zero_stage: 1, 2 or 3"),
        (
            {"optimizer": {"type": "Lamb"}, "fp16": {"enabled": True}},
            "DeepSpeed's settings have optimizer and fp16, which the recipe has",
            "leave it out there, see --set",
        ),
        (
            {"stage": 3, "settings": {"offload_param": {"device": "nvme"}}},
            "offloading to NVMe is not supported",
            "offload to cpu",
        ),
        (
            {"method": "full_finetuning", "chosen": {"optimizer": "adafactor"}},
            "DeepSpeed is not for this run: adafactor looks at whole weights",
            "add --set optimizer=adamw",
        ),
        ({"method": "loraplus"}, "DeepSpeed is not for this run: LoRA+ has an optimizer of its own", LEAVE_OUT),
        ({"method": "adalora"}, "DeepSpeed is not for this run: AdaLoRA changes weights between steps", LEAVE_OUT),
    ],
)
def test_what_deepspeed_cannot_do_is_refused(
    how: dict[str, Any], message: str, hint: str, asks: Callable[..., tuple[str, str]]
) -> None:
    assert asks(**how) == (message, hint)


def test_settings_of_deepspeed_that_cannot_be_read(
    asks: Callable[..., tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACCELERATE_DEEPSPEED_CONFIG_FILE", str(tmp_path / "nowhere.json"))
    message, hint = asks()
    assert message.startswith("DeepSpeed's settings cannot be read: ") and "nowhere.json" in message
    assert hint == "see accelerate's file"


def test_weights_that_zero_has_not_gathered_are_explained() -> None:
    from peftselect.api import host
    from peftselect.method import Candidate
    from peftselect.training.zero import Zero

    said = "Function LinearFunctionForZeroStage3Backward returned an invalid gradient at index 1"
    meft = SimpleNamespace(method=host().method("meft"))
    with pytest.raises(UnsupportedError, match="ZeRO-3 is not for MEFT") as error:
        Zero().explain(RuntimeError(said), cast(Candidate, meft))
    assert error.value.hint == "write zero_stage: 2, or choose --method lora"
    Zero().explain(RuntimeError("the file is gone"), cast(Candidate, meft))


@pytest.mark.slow
@installed
def test_what_programs_read_is_ours_alone_where_it_is_installed(
    peftselect: Any, tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", settings={"num_train_epochs": 1})
    run = api.run(**order).output
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)  # that run has said that there is no card
    done = peftselect("merge", run, "--output", tmp_path / "merged")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("The merged model lies in ")
    assert "accelerator" not in done.stdout + done.stderr
