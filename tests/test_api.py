"""From plain arguments to a question: what is read, what is assumed, what is refused."""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

import pytest

import peftselect
from peftselect.errors import InputError, UnknownNameError
from peftselect.hardware import hardware
from peftselect.problem import GIB, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("1h30m", 5400), ("90m", 5400), ("45s", 45), ("1.5h", 5400), ("1 d", 86400), ("600", 600), (60, 60)],
)
def test_a_time_budget_is_read_as_people_write_it(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["soon", "2 hours", "-1h", "0", "h", "1h-30m", "nan", "inf", "", "2h30"])
def test_a_time_budget_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not a length of time") as caught:
        parse_duration(text)
    assert "1h30m" in caught.value.hint


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"task": "summarisatoin"}, "unknown task 'summarisatoin'"),
        ({"model": "no-such-model-anywhere"}, "no-such-model-anywhere"),
        ({"vram_gib": -4}, "--vram -4 is not an amount of memory"),
        ({"vram_gib": float("nan")}, "--vram nan is not an amount of memory"),
        ({"vram_gib": 0}, "--vram 0 is not an amount of memory"),
        ({"device": "tpu"}, "device 'tpu' is not known"),
        ({"devices": 0}, "--devices 0 is not a number of devices"),
        ({"sharding": "zero3"}, "sharding zero3 needs several devices"),
        ({"sharding": "zero9"}, "sharding 'zero9' is not known"),
        ({"batch_size": 0}, "--batch-size 0 is too small"),
        ({"batch_size": 3, "devices": 2}, "a batch of 3 cannot be shared among 2 devices"),
        ({"num_examples": -5}, "--num-examples -5 is too small"),
        ({"prefer": "cheap"}, "unknown preference 'cheap'"),
        ({"must": ["merges"]}, "unknown need 'merges'"),
        ({"traits": ["faithfull"]}, "unknown trait 'faithfull'"),
        ({"precision": "fp8"}, "unknown precision 'fp8'"),
        ({"quantization": "int3"}, "unknown quantization 'int3'"),
        ({"task": "ner", "model": "flan-t5-base"}, "cannot serve ner"),
        ({"model": "bert-base-uncased", "task": "summarization"}, "cannot serve summarization"),
        ({"task": "classification", "model": "bert-base-uncased", "max_length": 513}, "--max-length 513 is more than"),
        ({"train": "no/such/file.jsonl"}, "no/such/file.jsonl"),
    ],
)
def test_bad_input_is_named_in_one_line(arguments: dict[str, object], message: str) -> None:
    question = {"task": "summarization", "vram_gib": 8, **arguments}
    with pytest.raises(InputError, match=message) as caught:
        peftselect.build_problem(**question)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_a_close_name_is_suggested() -> None:
    with pytest.raises(UnknownNameError) as caught:
        peftselect.build_problem("summarization", must=["merges"])
    assert caught.value.hint == "did you mean merge?"


def test_the_budget_is_one_devices_memory() -> None:
    machine = hardware(24, devices=4, sharding="zero2")
    assert (machine.vram_bytes, machine.devices, machine.sharding, machine.origin) == (24 * GIB, 4, "zero2", "given")


def test_the_card_is_read_through_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!{sys.executable}\nprint('NVIDIA L40S, 46068')\n")
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    machine = hardware()
    assert (machine.name, machine.vram_bytes) == ("NVIDIA L40S", 46068 * 1024**2)
    assert machine.origin == "read from the card"
    assert hardware(device="cpu").vram_bytes is None
    assert hardware(4).vram_bytes == 4 * GIB


@pytest.mark.parametrize("says", ["", "no devices were found", "NVIDIA, [N/A]"])
def test_a_driver_that_knows_nothing_means_no_budget(says: str, tmp_path: Path, monkeypatch) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text(f"#!{sys.executable}\nprint({says!r})\n")
    driver.chmod(driver.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware().vram_bytes is None


def test_training_data_give_the_number_of_examples_labels_and_lengths(tmp_path: Path) -> None:
    rows = [
        {"text": "a film " * (5 + number % 30), "label": ["good", "bad", "so so"][number % 3]} for number in range(90)
    ]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    problem = peftselect.build_problem(
        "classification", "bert-base-uncased", vram_gib=8, train=tmp_path / "train.jsonl"
    )
    assert problem.data.num_examples == 90
    assert problem.data.num_labels == problem.shape.head.num_labels == 3
    assert problem.max_length < 512
    assert problem.data.origin == "read from train.jsonl"


def test_what_the_user_says_goes_before_what_the_data_show(tmp_path: Path) -> None:
    (tmp_path / "train.jsonl").write_text('{"text": "good", "label": "a"}\n{"text": "bad", "label": "b"}\n' * 5)
    problem = peftselect.build_problem(
        "classification", "bert-base-uncased", train=tmp_path / "train.jsonl", num_examples=5000, max_length=300
    )
    assert (problem.data.num_examples, problem.max_length) == (5000, 300)


@pytest.mark.parametrize(("vram", "model"), [(4, "flan-t5-base"), (1.5, "flan-t5-small")])
def test_without_a_model_the_largest_that_is_no_stretch_is_proposed(vram: float, model: str) -> None:
    assert peftselect.build_problem("summarization", vram_gib=vram).model.name == model
