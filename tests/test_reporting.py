"""Reports to other tools: names and packages are checked first, TensorBoard's files lie in the output."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import peftselect
from peftselect.errors import InputError, UnknownNameError
from peftselect.training import reporting
from tests.test_run import arguments


def test_an_unknown_report_and_a_missing_package(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    with pytest.raises(UnknownNameError, match="unknown report 'tensorbord'"):
        peftselect.plan_run(**order, report_to=("tensorbord",))
    monkeypatch.setattr(reporting, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="--report-to wandb needs the package wandb"):
        peftselect.plan_run(**order, report_to=("wandb",))


def test_tensorboard_is_told_of_losses_and_scores(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX")
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora")
    output = peftselect.run(**order, report_to=("tensorboard",)).output
    files = list((output / "runs").rglob("events.out.tfevents.*"))
    told = b"".join(file.read_bytes() for file in files)
    assert files and b"train/loss" in told and b"eval/accuracy" in told
