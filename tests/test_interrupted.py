"""Runs that are stopped on the way: told to, killed, out of room; and what goes on from what they saved."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect.cli import main
from peftselect.errors import DataError, InputError, UnsupportedError
from peftselect.plugin_manager import host
from peftselect.results import user_store
from peftselect.training.interrupts import Interrupted
from peftselect.training.unfinished import Checkpoint, SavingError, newest, work_folder, write_whole
from tests.test_run import arguments, read_json, write_rows


class AtStep:
    """An observer that does something when training has come to a step."""

    def __init__(self, step: int, act: Callable[[], None]) -> None:
        self.step = step
        self.act = act
        self.training = False

    def stage(self, text: str) -> None:
        self.training = text.startswith("training")

    def progress(self, done: int, total: int, text: str = "") -> None:
        if self.training and done == self.step:
            self.act()


def signalled(number: signal.Signals) -> Callable[[], None]:
    """Send this process a signal, as a terminal or a scheduler does."""
    return lambda: os.kill(os.getpid(), number)


def weights(output: Path) -> dict[str, Any]:
    """Every tensor that a run has written."""
    from safetensors.numpy import load_file

    return {name: item.tolist() for file in output.glob("*.safetensors") for name, item in load_file(file).items()}


def order_of(folder: Path, model: Path, method: str, **more: Any) -> dict[str, Any]:
    """20 optimizer steps with a dropout, over four epochs."""
    return arguments(folder, "classification", model, method, settings={"num_train_epochs": 4}, **more)


#: methods with a state of their own, each interrupted where that matters; the last is at the end of an epoch
STATES = {
    "lora": ("bert", 7),
    "adalora": ("bert", 11),
    "p_tuning": ("bert", 3),
    "full_finetuning": ("bert", 13),
    "loraplus": ("bert", 19),
    "qlora": ("llama", 10),
    "mezo_lora": ("bert", 9),
}


@pytest.mark.parametrize("method", STATES)
def test_a_resumed_run_ends_as_one_that_was_not_interrupted(
    method: str, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    kind, step = STATES[method]
    order = order_of(tmp_path, tiny_models(kind), method)
    whole = peftselect.run(**{**order, "output": tmp_path / "whole"})
    with pytest.raises(Interrupted) as caught:
        peftselect.run(**order, observer=AtStep(step, signalled(signal.SIGTERM)))
    assert caught.value.exit_code == 143
    saved = newest(work_folder(order["output"]))
    assert saved is not None and (saved.step, saved.total) == (step, 20)
    assert not Path(order["output"]).exists()
    result = peftselect.resume(order["output"])
    assert result.record.scores == whole.record.scores
    assert result.record.baseline == whole.record.baseline
    assert weights(result.output) == weights(whole.output)
    history = [read_json(folder / "metrics.json")["history"] for folder in (result.output, whole.output)]
    assert history[0]["validation"] == history[1]["validation"]
    assert history[0]["training"] == history[1]["training"]
    assert not work_folder(order["output"]).exists()


#: tiny models, the first of which that a method serves is taken
ROOMS = (("bert", "classification"), ("t5", "summarization"), ("llama", "text_generation"),
         ("wav2vec2", "keyword_spotting"))  # fmt: skip
RUNNABLE = [name for name, method in host().methods().items() if method.kind == "runnable" and not method.needs]


@pytest.mark.slow
@pytest.mark.parametrize("method", RUNNABLE)
def test_every_method_goes_on_exactly(method: str, tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    for kind, task in ROOMS:
        order = arguments(tmp_path, task, tiny_models(kind), method, settings={"num_train_epochs": 2})
        try:
            peftselect.plan_run(**order)
        except UnsupportedError:
            continue
        whole = peftselect.run(**{**order, "output": tmp_path / "whole"})
        with pytest.raises(Interrupted):
            peftselect.run(**order, observer=AtStep(7, signalled(signal.SIGTERM)))
        result = peftselect.resume(order["output"])
        assert weights(result.output) == weights(whole.output)
        assert result.record.scores == whole.record.scores
        return
    pytest.fail(f"{method} serves none of the tiny models")


def test_there_are_methods_to_go_on_with() -> None:
    assert len(RUNNABLE) > 20


def test_interrupted_twice_stops_at_once_and_keeps_the_checkpoint(
    tiny_models: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    order = order_of(tmp_path, tiny_models("bert"), "lora", checkpoint_every="0.001s")

    def twice() -> None:
        signalled(signal.SIGINT)()
        signalled(signal.SIGINT)()

    with pytest.raises(Interrupted) as caught:
        peftselect.run(**order, observer=AtStep(9, twice))
    assert caught.value.exit_code == 130
    saved = newest(work_folder(order["output"]))
    assert saved is not None and saved.step == 8
    capsys.readouterr()
    with pytest.raises(SystemExit) as done:
        main(["run", "--resume", str(order["output"]), "--json"])
    assert done.value.code == 0
    assert json.loads(capsys.readouterr().out)["measured"]["steps"] == 20


def test_an_interrupted_run_is_not_run_over_by_mistake(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = order_of(tmp_path, tiny_models("bert"), "lora")
    with pytest.raises(KeyboardInterrupt):
        peftselect.run(**order, observer=AtStep(4, signalled(signal.SIGINT)))
    with pytest.raises(InputError, match="was interrupted at step 4 of 20") as caught:
        peftselect.plan_run(**order)
    assert f"--resume {order['output']} goes on" in caught.value.hint
    write_rows(Path(order["train"]), "classification", range(200, 240))
    with pytest.raises(DataError, match=r"not those that the run towards .* began with"):
        peftselect.resume(order["output"])
    assert peftselect.run(**order, overwrite=True).record.measured["steps"] == 20
    with pytest.raises(InputError, match=r"nothing to go on with \(its run is finished"):
        peftselect.resume(order["output"])
    with pytest.raises(InputError, match="nothing to go on with"):
        peftselect.resume(tmp_path / "nowhere")


def test_two_runs_cannot_write_one_folder(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = order_of(tmp_path, tiny_models("bert"), "lora")
    found: list[BaseException] = []

    def again() -> None:
        with pytest.raises(InputError, match="another run is writing") as caught:
            peftselect.run(**order)
        found.append(caught.value)

    peftselect.run(**order, observer=AtStep(2, again))
    assert len(found) == 1


def test_half_a_checkpoint_is_passed_over(tmp_path: Path) -> None:
    known = {"total": 9, "finished": False}
    for step in (2, 4, 6):
        (tmp_path / f"checkpoint-{step}").mkdir()
    write_whole(tmp_path / "checkpoint-2" / "whole.json", {"step": 2, **known})
    write_whole(tmp_path / "checkpoint-4" / "whole.json", {"step": 4, **known})
    (tmp_path / "checkpoint-6" / ".whole.json.part").write_text('{"step": 6')
    found = newest(tmp_path)
    assert found is not None and found.step == 4


def test_a_full_disk_is_said_in_a_line_and_what_was_saved_stays(
    tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    order = order_of(tmp_path, tiny_models("bert"), "lora", checkpoint_every="0.001s")
    whole = peftselect.run(**{**order, "output": tmp_path / "whole"})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))  # what a full disk does to every larger file

    try:
        with pytest.raises(SavingError, match=r"cannot be written \(.+\)") as caught:
            peftselect.run(**order, observer=AtStep(6, fill))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in caught.value.message
    assert caught.value.hint == f"make room; peftselect run --resume {order['output']} goes on from step 5"
    assert weights(peftselect.resume(order["output"]).output) == weights(whole.output)


def test_a_folder_that_vanishes_is_said_in_a_line(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = order_of(tmp_path, tiny_models("bert"), "lora", checkpoint_every="0.001s")
    work = work_folder(order["output"])
    with pytest.raises(SavingError, match="is gone: the run towards") as caught:
        peftselect.run(**order, observer=AtStep(6, lambda: shutil.rmtree(work)))
    assert "\n" not in caught.value.message
    assert caught.value.hint == "start it anew"
    assert not work.exists()


def test_without_checkpoints_a_failed_run_leaves_nothing(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    order = order_of(tmp_path, tiny_models("bert"), "lora")

    def fail() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        peftselect.run(**order, observer=AtStep(6, fail))
    assert not work_folder(order["output"]).exists()
    assert user_store().read() == []


def _train(order: dict[str, Any], home: str) -> None:
    os.environ["PEFTSELECT_HOME"] = home
    began = (work_folder(order["output"]) / "order.json").exists()
    if began:
        peftselect.resume(order["output"])
    else:
        peftselect.run(**order)


def step_of(checkpoint: Checkpoint | None) -> int:
    """The step that is saved, 0 where nothing is."""
    return checkpoint.step if checkpoint else 0


def killed_again_and_again(order: dict[str, Any], home: Path, kills: int) -> list[int]:
    """Run and resume in processes that are killed at random moments; the steps that were saved by then.

    Every other sitting is left until it has saved something new, so that a slow machine gets on, too.
    """
    forks = multiprocessing.get_context("forkserver")
    forks.set_forkserver_preload(["peft", "datasets", "evaluate", "peftselect.training.job"])
    draw, saved = random.Random(7), []
    while len(saved) < kills:
        process = forks.Process(target=_train, args=(order, str(home)))
        process.start()
        work = work_folder(order["output"])
        while process.is_alive() and not (work / "order.json").exists():
            time.sleep(0.02)
        while process.is_alive() and len(saved) % 2 == 0 and step_of(newest(work)) <= max(saved, default=0):
            time.sleep(0.02)
        process.join(draw.uniform(0.2, 2.5))
        assert process.exitcode in (None, 0), "a sitting failed by itself"
        if process.exitcode == 0:
            break
        process.kill()
        process.join()
        saved.append(step_of(newest(work)))
    if not Path(order["output"]).exists():
        last = forks.Process(target=_train, args=(order, str(home)))
        last.start()
        last.join(120)
        assert last.exitcode == 0
    return saved


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_a_run_still_ends_the_same(
    kills: int, tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    settings = {"num_train_epochs": 60 * kills}
    order = arguments(
        tmp_path, "classification", tiny_models("bert"), "lora", settings=settings, checkpoint_every="0.1s"
    )
    whole = peftselect.run(**{**order, "output": tmp_path / "whole"})
    saved = killed_again_and_again(order, tmp_path / "home", kills)
    assert len(saved) == kills, "the run was over before it could be killed"
    assert saved == sorted(saved) and saved[-1] > 0
    assert weights(Path(order["output"])) == weights(whole.output)
    assert read_json(Path(order["output"]) / "run.json")["scores"] == read_json(whole.output / "run.json")["scores"]


def test_a_buffer_that_takes_the_place_of_another_is_saved(tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    from peftselect.training.checkpoints import TENSORS, Resumable

    runner = Resumable()
    runner.model = torch.nn.Module()
    for attempt in range(10):  # memory that the one leaves is likely the other's, and with it its identity
        runner.model.register_buffer("state", torch.zeros(3))
        runner.watch_changes()
        del runner.model.state
        runner.model.register_buffer("state", torch.ones(3))
        runner.save_model(str(tmp_path / str(attempt)))
        assert load_file(tmp_path / str(attempt) / TENSORS)["state"].tolist() == [1.0] * 3
        del runner.model.state
