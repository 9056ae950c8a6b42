"""The energy of a run, as codecarbon really measures it here."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import peftselect
from tests.test_run import arguments

pytest.importorskip("codecarbon", reason="codecarbon (the extra `energy`) is not installed")


def test_a_run_records_its_energy_and_leaves_nothing_else(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    def refuse(*address: Any) -> Any:
        raise AssertionError(f"it asks {address}")

    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setattr(socket.socket, "connect", refuse)
    order = arguments(tmp_path, "classification", tiny_models("bert"), "lora", settings={"num_train_epochs": 8})
    result = peftselect.run(**order)
    measured = result.record.measured
    watts = measured["energy_kwh"] * 3.6e6 / measured["train_seconds"]
    assert 0.1 < watts < 2000
    assert measured["energy_by"].startswith("codecarbon ") and " of the process: CPU " in measured["energy_by"]
    assert "energy of training (codecarbon)" in (result.output / "README.md").read_text()
    assert not list((tmp_path / "here").iterdir()) and not list(tmp_path.rglob("emissions*"))
    assert "codecarbon" not in "".join(capfd.readouterr())


def test_sittings_add_up(tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    from peftselect.training.energy import Meter

    first, second = Meter(), Meter()
    with first.running():
        sum(range(2 * 10**7))
        state = json.loads(json.dumps(first.training_state(None)))
    assert state["kilowatt_hours"] > 0
    second.restore_training_state(None, state)
    with second.running():
        sum(range(2 * 10**7))
    assert second.measured()["energy_kwh"] > state["kilowatt_hours"]
