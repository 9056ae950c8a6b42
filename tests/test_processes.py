"""Runs of several processes, as torchrun and accelerate start them: one process's weights, one output, one voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect.training.unfinished import newest, work_folder
from tests.test_interrupted import weights
from tests.test_run import arguments

TORCHRUN = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
#: the same rows in one step, whether one process takes two micro-batches or two processes one each
SETTINGS = {"num_train_epochs": 4, "lora_dropout": 0, "group_by_length": False}


def words(folder: Path, model: Path, output: str, *more: str) -> list[str]:
    """A command's words: 20 steps of eight rows."""
    order = arguments(folder, "classification", model, "lora", settings=SETTINGS)
    named = {"train": order["train"], "eval": order["evaluation"], "test": order["test"], "model": model}
    found = ["run", "--task", "classification", "--method", "lora", "--device", "cpu", "--max-length", "48"]
    found += ["--batch-size", "8", "--output", str(folder / output)]
    for name, value in named.items():
        found += [f"--{name}", str(value)]
    for name, value in order["settings"].items():
        found += ["--set", f"{name}={str(value).lower()}"]
    return [*found, *more]


def started(launcher: tuple[str, ...], command: list[str], home: Path) -> subprocess.Popen[str]:
    """A launcher with this command, a folder of its own for records, and a base model without dropout."""
    environment = {**os.environ, "PEFTSELECT_HOME": str(home), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, *launcher, *command],
        env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def without_dropout(model: Path, folder: Path) -> Path:
    """A copy of a tiny model that drops nothing."""
    import shutil

    copied = folder / "model"
    shutil.copytree(model, copied)
    config = json.loads((copied / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.0}
    (copied / "config.json").write_text(json.dumps(config))
    return copied


def flat(value: Any) -> list[float]:
    """The numbers of nested lists."""
    return [value] if isinstance(value, float) else [number for item in value for number in flat(item)]


def assert_alike(one: Path, other: Path, tolerance: float) -> None:
    """The tensors of two output folders differ by no more."""
    left, right = weights(one), weights(other)
    assert left.keys() == right.keys() and len(left) > 2
    for name in left:
        assert flat(left[name]) == pytest.approx(flat(right[name]), abs=tolerance), name


def test_two_processes_end_as_one_with_doubled_accumulation(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    model = without_dropout(tiny_models("bert"), tmp_path)
    process = started(TORCHRUN, ["-m", "peftselect", *words(tmp_path, model, "two")], tmp_path / "home")
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert out.count("Before and after") == 1 and out.count("output ") == 1
    assert err.count("training ") == 1 and "2 processes share each batch" in out
    halves = {**SETTINGS, "micro_batch_size": 4}
    order = arguments(tmp_path, "classification", model, "lora", settings=halves, batch_size=8)
    one = peftselect.run(**{**order, "output": tmp_path / "one"})
    assert_alike(tmp_path / "two", one.output, 1e-5)
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["measured"]["steps"] == one.record.measured["steps"] == 20
    assert record["candidate"]["recipe"]["micro_batch_size"] == 4
    scores = {name: score["value"] for name, score in record["scores"].items()}
    assert scores == pytest.approx({name: score.value for name, score in one.record.scores.items()})
    assert len(list((tmp_path / "home").rglob("*.json"))) == 1  # one record in the store
    assert not work_folder(tmp_path / "two").exists()


@pytest.mark.slow
def test_processes_that_are_told_to_stop_go_on(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    model, home = without_dropout(tiny_models("bert"), tmp_path), tmp_path / "home"
    whole = started(TORCHRUN, ["-m", "peftselect", *words(tmp_path, model, "whole")], home)
    stopped = started(
        TORCHRUN, ["-m", "peftselect", *words(tmp_path, model, "stopped", "--checkpoint-every", "0.001s")], home
    )
    work, until = work_folder(tmp_path / "stopped"), time.monotonic() + 300
    while newest(work) is None and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(stopped.pid, signal.SIGTERM)
    _, err = stopped.communicate(timeout=300)
    assert err.count("To go on:") == 1
    saved = newest(work)
    assert saved is not None and saved.step < 20
    again = started(("-m", "accelerate.commands.launch", "--cpu", "--num_processes", "2"),
                    ["-m", "peftselect", "run", "--resume", str(tmp_path / "stopped")], home)  # fmt: skip
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    whole.communicate(timeout=300)
    assert_alike(tmp_path / "whole", tmp_path / "stopped", 1e-7)


SCRIPT = """
import os, sys
from peftselect.cli import main
from peftselect.errors import PeftSelectError
from peftselect.training import callbacks

words, failing = sys.argv[2:], sys.argv[1]
if os.environ["RANK"] == "1" and failing == "plan":
    words[words.index("--train") + 1] = "nowhere.jsonl"
if os.environ["RANK"] == "1" and failing == "training":
    def fail(self, args, state, control, **_):
        if state.global_step == 3:
            raise PeftSelectError("this process cannot go on", "ask the other one")
    callbacks.WatchMemory.on_step_begin = fail
main(words)
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("failing", "more", "said"),
    [
        ("plan", (), "error: there is no file nowhere.jsonl (process 1)"),
        ("training", (), "error: this process cannot go on"),
        ("nothing", ("--probe", "40steps"), "error: --probe is done by one process"),
        ("nothing", ("--devices", "3", "--batch-size", "9"), "error: --devices 3, but 2 processes"),
        ("nothing", ("--max-steps", "many"), "error: Invalid value for '--max-steps'"),
    ],
)
def test_an_error_ends_all_with_one_line(
    failing: str, more: tuple[str, ...], said: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [str(script), failing, *words(tmp_path, tiny_models("bert"), "out", *more)]
    process = started(TORCHRUN, command, tmp_path / "home")
    _, err = process.communicate(timeout=300)
    assert process.returncode != 0
    lines = [line for line in err.splitlines() if line.startswith(("error: ", "hint: "))]
    assert len(lines) == 2 and lines[0].startswith(said), err
    assert not (tmp_path / "out").exists()


def test_sharded_weights_are_refused(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftselect.errors import UnsupportedError
    from peftselect.training import devices, ranks

    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", devices=2, batch_size=8)
    problem = peftselect.plan_run(**order).problem
    monkeypatch.setattr(ranks, "count", lambda: 2)
    assert devices.check_devices(problem) == "2 processes share each batch"
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UnsupportedError, match="not weights"):
        devices.check_devices(problem)
