"""Runs of several processes, as torchrun and accelerate start them: one process's weights, one output, one voice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
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
WHOLE = {name: value for name, value in SETTINGS.items() if name != "lora_dropout"}  # of methods without one


def words(
    folder: Path, model: Path, output: str, *more: str, task: str = "classification", method: str = "lora",
    settings: dict[str, Any] = SETTINGS,
) -> list[str]:  # fmt: skip
    """A command's words: 20 steps of eight rows."""
    order = arguments(folder, task, model, method, settings=settings)
    named = {"train": order["train"], "eval": order["evaluation"], "test": order["test"], "model": model}
    found = ["run", "--task", task, "--method", method, "--device", "cpu", "--max-length", "48"]
    found += ["--batch-size", "8", "--output", str(folder / output)]
    found += ["--max-target-length", str(order["max_target_length"])] if "max_target_length" in order else []
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
    config |= {name: 0.0 for name in config if "dropout" in name} | {"classifier_dropout": 0.0}
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
    assert len(list((tmp_path / "home" / "results").rglob("*.json"))) == 1  # one record in the store
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


SHARED = """
compute_environment: LOCAL_MACHINE
distributed_type: FSDP
fsdp_config:
  fsdp_version: 2
  fsdp_auto_wrap_policy: TRANSFORMER_BASED_WRAP
  fsdp_reshard_after_forward: true
  fsdp_cpu_ram_efficient_loading: true
num_machines: 1
num_processes: 2
mixed_precision: 'no'
use_cpu: true
"""


def sharing(folder: Path) -> tuple[str, ...]:
    """accelerate's launcher, with a file that asks for FSDP."""
    (folder / "fsdp.yaml").write_text(SHARED)
    file = str(folder / "fsdp.yaml")
    return ("-m", "accelerate.commands.launch", "--main_process_port", "0", "--config_file", file)


#: says on standard error what the first process has of the weights while it trains
WATCHED = """
import sys
from torch.distributed.tensor import DTensor
from peftselect.cli import main
from peftselect.training import callbacks, ranks

def tell(self, args, state, control, model=None, **_):
    if ranks.is_first() and state.global_step == 3:
        parts = [item for item in model.parameters() if isinstance(item, DTensor)]
        print("shared", len(parts), sum(item.to_local().numel() for item in parts), file=sys.stderr)

callbacks.WatchMemory.on_step_begin = tell
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "kind", "method"),
    [
        ("classification", "bert", "lora"),
        ("summarization", "t5", "full_finetuning"),
        ("classification", "bert", "prompt_tuning"),
    ],
)
def test_processes_that_share_weights_end_as_one(
    task: str, kind: str, method: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    model, home = without_dropout(tiny_models(kind), tmp_path), tmp_path / "home"
    settings = SETTINGS if method == "lora" else WHOLE
    (tmp_path / "script.py").write_text(WATCHED)
    command = words(tmp_path, model, "two", task=task, method=method, settings=settings)
    process = started(sharing(tmp_path), [str(tmp_path / "script.py"), *command], home)
    out, err = process.communicate(timeout=400)
    assert process.returncode == 0, err
    assert "2 processes share each batch, and weights by FSDP" in out
    halves = {**settings, "micro_batch_size": 4}
    one = peftselect.run(
        **{**arguments(tmp_path, task, model, method, settings=halves, batch_size=8), "output": tmp_path / "one"}
    )
    assert_alike(tmp_path / "two", one.output, 1e-5)
    record = json.loads((tmp_path / "two" / "run.json").read_text())
    assert record["scores"][record["metric"]]["value"] == pytest.approx(one.record.scores[record["metric"]].value)
    assert len(list((home / "results").rglob("*.json"))) == 1
    number, held = next(line.split()[1:] for line in err.splitlines() if line.startswith("shared "))
    total = record["measured"]["total_parameters"]
    assert int(number) > 20 and int(held) < 0.6 * total


def assert_sharing_goes_on(launcher: tuple[str, ...], model: Path, folder: Path) -> None:
    """A run of all weights that was told to stop ends as one that was not, from a checkpoint of ours."""
    home = folder / "home"
    orders = [
        words(folder, model, name, *more, method="full_finetuning", settings=WHOLE)
        for name, more in (("whole", ()), ("stopped", ("--checkpoint-every", "0.001s")))
    ]
    whole, stopped = (started(launcher, ["-m", "peftselect", *order], home) for order in orders)
    work, until = work_folder(folder / "stopped"), time.monotonic() + 300
    while newest(work) is None and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(stopped.pid, signal.SIGTERM)
    _, err = stopped.communicate(timeout=300)
    saved = newest(work)
    assert saved is not None and saved.step < 20, err
    assert not list(saved.folder.glob("global_step*"))  # DeepSpeed's own, pickled
    again = started(launcher, ["-m", "peftselect", "run", "--resume", str(folder / "stopped")], home)
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    whole.communicate(timeout=300)
    assert_alike(folder / "whole", folder / "stopped", 1e-7)


@pytest.mark.slow
def test_processes_that_share_weights_go_on(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    assert_sharing_goes_on(sharing(tmp_path), without_dropout(tiny_models("bert"), tmp_path), tmp_path)


def test_weights_are_shared_only_where_that_is_right(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from peftselect.errors import UnsupportedError
    from peftselect.training import devices, ranks

    def asked(method: str = "lora") -> dict[str, Any]:
        return arguments(tmp_path, "classification", tiny_models("bert"), method, devices=2, batch_size=8)

    problem = peftselect.plan_run(**asked()).problem
    split = replace(problem, hardware=replace(problem.hardware, sharding="zero3"))
    monkeypatch.setattr(ranks, "count", lambda: 2)
    monkeypatch.setattr(ranks, "agreed", lambda settle, cpu: settle())
    assert devices.check_devices(problem) == "2 processes share each batch"
    with pytest.raises(UnsupportedError, match="batches, not weights"):
        devices.check_devices(split)
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(UnsupportedError, match="first version") as error:
        peftselect.plan_run(**asked())
    assert error.value.hint == "write fsdp_version: 2 into accelerate's file"
    monkeypatch.setenv("FSDP_VERSION", "2")
    assert peftselect.plan_run(**asked()).notes[-1] == "2 processes share each batch, and weights by FSDP"
    for method, why in (
        ("qlora", "a quantised base cannot be cut into shards"),
        ("loraplus", "LoRA+ has an optimizer of its own"),
        ("adalora", "AdaLoRA changes weights between steps"),
    ):
        with pytest.raises(UnsupportedError, match="FSDP is not for this run") as error:
            peftselect.plan_run(**asked(method))
        assert str(error.value).endswith(why)
