"""`estimate`: traces, raw configurations, options from a file, lengths from data, searches, comparisons, bad input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

BASE = ("estimate", "--model", "gpt2", "--batch-size", "4")
LORA = (*BASE, "--method", "lora")


def document(done: Any, code: int = 0) -> dict[str, Any]:
    assert (done.returncode, done.stderr) == (code, ""), done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_without_a_flag_the_step_is_traced_and_remembered(peftselect: Any, isolated_home: Path) -> None:
    found = document(peftselect(*LORA, "--json"))
    assert found["source"] == "fast_trace"
    assert set(found["error_band"]) == {"median_percent", "worst_percent"}
    inside = sum(size for name, size in found["breakdown"].items() if name != "cuda_context")
    assert found["peak_allocated_bytes"] <= found["smallest_capacity_bytes"] == inside
    assert found["trainable_parameters"] == 12 * 16 * (768 + 3 * 768)
    assert len(list((isolated_home / "cache" / "traces").iterdir())) == 1
    assert document(peftselect(*LORA, "--json")) == found
    shown = peftselect(*LORA)
    assert "tracing a training step" in shown.stderr
    assert "fast trace: a few layers of the real step, extended" in " ".join(shown.stdout.split())


def test_any_peft_configuration(peftselect: Any, tmp_path: Path) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text(json.dumps({"peft_type": "LOHA", "r": 4, "target_modules": ["q_proj"]}))
    llama = ("estimate", "--model", "llama-3.2-1b", "--batch-size", "1", "--max-length", "64")
    for where in (file, tmp_path):
        found = document(peftselect(*llama, "--peft-config", str(where), "--json"))
        assert (found["method"], found["source"]) == ("loha", "fast_trace")
        assert found["trainable_parameters"] == 16 * 2 * 4 * (2048 + 2048)
    file.write_text(json.dumps({"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"]}))
    done = peftselect(*BASE, "--peft-config", str(file))
    assert done.returncode == 2
    assert "the PEFT configuration does not suit the model" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_from_a_file_give_way_to_the_command_line(peftselect: Any, tmp_path: Path) -> None:
    file = tmp_path / "training.json"
    options = {"model": "gpt2", "method": "lora", "settings": {"r": 8}, "batch-size": 2, "vram": 4, "trace": "never"}
    file.write_text(json.dumps(options))
    found = document(peftselect("estimate", "--config", str(file), "--json"))
    assert (found["source"], found["verdict"]) == ("closed_form", "fits")
    assert found["trainable_parameters"] == 12 * 8 * (768 + 3 * 768)
    larger = document(peftselect("estimate", "--config", str(file), "--batch-size", "3", "--json"))
    assert larger["peak_allocated_bytes"] > found["peak_allocated_bytes"]


def test_data_decide_the_length(peftselect: Any, tiny_models: Any, tmp_path: Path) -> None:
    rows = [{"text": "good film " * times, "label": str(times % 2)} for times in (1, 2, 3, 4, 20)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    question = ("estimate", "--no-trace", "--model", str(tiny_models("bert")), "--method", "lora", "--train",
                str(tmp_path / "train.jsonl"), "--batch-size", "2")  # fmt: skip
    found = document(peftselect(*question, "--task", "classification", "--json"))
    spread = found["lengths"]
    assert spread["examples"] == 5
    assert spread["rows"]["p50"] < spread["batches"]["p50"] <= spread["batches"]["longest"] == spread["rows"]["longest"]
    shown = peftselect(*question, "--task", "classification")
    assert f"inputs of {spread['rows']['longest']} tokens" in shown.stdout
    assert f"{spread['rows']['longest']} (longest)" in shown.stdout
    done = peftselect(*question)
    assert (done.returncode, "--task is missing" in done.stderr) == (2, True)


@pytest.mark.parametrize("trace", ["--no-trace", "--fast"])
def test_the_largest_batch_fits_and_one_more_does_not(peftselect: Any, trace: str) -> None:
    question = ("estimate", trace, "--model", "gpt2", "--method", "lora", "--max-length", "128", "--vram", "3")
    found = document(peftselect(*question, "--max-batch", "--json"))
    assert found["search"]["limit"] == "memory"
    largest = found["search"]["largest"]
    verdicts = [
        document(peftselect(*question, "--batch-size", str(size), "--json"))["verdict"]
        for size in (largest, largest + 1)
    ]
    assert verdicts == ["fits", "borderline"]


def test_the_longest_input(peftselect: Any) -> None:
    question = (*LORA, "--no-trace", "--find-max-length")
    roomy = document(peftselect(*question, "--vram", "40", "--json"))
    assert roomy["search"] == {"what": "max_length", "largest": 1024, "limit": "the model's positions"}
    tight = document(peftselect(*question, "--vram", "2", "--json"))["search"]
    assert 0 < tight["largest"] < 1024
    assert tight["largest"] % 8 == 0
    none = peftselect(*question, "--vram", "0.5")
    assert none.returncode == 3
    assert "not even the smallest fits" in none.stdout


def test_methods_side_by_side(peftselect: Any) -> None:
    question = (*BASE, "--no-trace", "--vram", "4", "--compare", "lora r=8", "lora r=64")
    found = document(peftselect(*question, "--json"))
    first, second = found["estimates"]
    assert second["trainable_parameters"] == 8 * first["trainable_parameters"]
    done = peftselect(*question)
    lines = [line for line in done.stdout.splitlines() if line.lstrip().startswith("lora r=")]
    assert (done.returncode, len(lines)) == (0, 2)


@pytest.mark.parametrize(("arguments", "text"), [
    ((*BASE,), "name one method, or one PEFT configuration"),
    ((*LORA, "--peft-config", "x.json"), "x.json: No such file or directory"),
    ((*BASE, "--peft-config", "BROKEN"), "not JSON"),
    ((*BASE, "--peft-config", "LIST"), "not a JSON object"),
    ((*BASE, "--peft-config", "EMPTY"), "peft_type is missing"),
    ((*BASE, "--peft-config", "TYPED", "--no-trace"), "a raw PEFT configuration has no closed form"),
    ((*BASE, "--peft-config", "TYPED", "--set", "r=4"), "--set is for a method's settings"),
    ((*LORA, "dora"), "what is 'dora' for?"),
    ((*LORA, "--compare", "lora"), "--compare names the methods itself"),
    ((*BASE, "--compare", ""), "--compare '' names no method"),
    ((*BASE, "--compare", "lora r"), "--compare 'r' is not name=value"),
    ((*BASE, "--compare", "lorra"), "unknown method 'lorra'"),
    ((*LORA, "--max-batch"), "the largest for which budget?"),
    ((*LORA, "--max-batch", "--find-max-length", "--vram", "4"), "ask two questions"),
    ((*LORA, "--batch-size", "1000000000"), "batch size 1000000000 is beyond what one device trains on"),
    (("estimate", "--model", "llama-3.2-1b", "--method", "lora", "--max-length", "1000000000"), "max length 1000000"),
    (("estimate", "--config", "nowhere.json"), "nowhere.json: No such file or directory"),
    (("estimate", "--config", "EMPTY", "--method", "lora"), "Missing option '--model'"),
    (("estimate", "--config", "TYPED"), "'peft_type'"),
    (("estimate", "--model", "ALIEN", "--method", "lora"), "unknown"),
    (("estimate", "--model", "HOLLOW", "--method", "lora"), "hidden_size"),
])  # fmt: skip
def test_bad_input_is_one_line_and_a_hint(
    peftselect: Any, tmp_path: Path, arguments: tuple[str, ...], text: str
) -> None:
    files = {"BROKEN": "{", "LIST": "[]", "EMPTY": "{}", "TYPED": '{"peft_type": "LORA"}'}
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    for name, config in {"ALIEN": {"model_type": "alien"}, "HOLLOW": {"model_type": "llama"}}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    places = {**{name: name for name in files}, "ALIEN": "./ALIEN", "HOLLOW": "./HOLLOW"}
    done = peftselect(*(places.get(word, word) for word in arguments), "--json")
    assert done.returncode == 2
    assert "Traceback" not in done.stdout + done.stderr
    assert text in done.stdout + done.stderr
