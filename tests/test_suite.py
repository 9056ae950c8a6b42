"""Suites: spread into runs, run once each, resumed, failures reported and gone past."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftselect.errors import InputError
from peftselect.suite import load_suite, shipped_suites

SUITE = """
about = "a test"
[defaults]
task = "classification"
max_steps = 2
[defaults.set]
r = 2
[grid]
method = ["lora", "head_only"]
seed = [0, 1]
"""


def suite(folder: Path, text: str = SUITE) -> Path:
    file = folder / "small.toml"
    file.write_text(text)
    return file


def test_a_grid_is_spread_into_runs_with_keys_of_their_own(tmp_path: Path) -> None:
    runs = load_suite(str(suite(tmp_path))).runs
    assert [(run.arguments["method"], run.arguments["seed"]) for run in runs] == [
        ("lora", 0), ("lora", 1), ("head_only", 0), ("head_only", 1)]  # fmt: skip
    assert len({run.key for run in runs}) == 4
    assert [run.key for run in load_suite(str(suite(tmp_path))).runs] == [run.key for run in runs]


def test_replacements_and_single_runs(tmp_path: Path) -> None:
    text = SUITE + '[[run]]\nmodel = "a"\n[[run]]\nmodel = "b"\nset = { r = 8 }\n'
    runs = load_suite(str(suite(tmp_path, text)), {"method": "ia3", "seed": 5}).runs
    assert [(r.arguments["model"], r.arguments["method"], r.arguments["set"]) for r in runs] == [
        ("a", "ia3", {"r": 2}), ("b", "ia3", {"r": 8})]  # fmt: skip


def test_the_thesis_suite_is_what_the_thesis_says() -> None:
    assert "thesis_chapter4" in shipped_suites()
    (run,) = load_suite("thesis_chapter4").runs
    arguments = run.arguments
    assert arguments["model"] == "google/flan-t5-base"
    assert (arguments["method"], arguments["max_steps"], arguments["test_limit"]) == ("lora", 100, 10)
    assert {**arguments["set"], "learning_rate": None} == {
        "r": 16, "lora_alpha": 16, "lora_dropout": 0.1, "target_modules": "q,v", "learning_rate": None}  # fmt: skip
    assert arguments["template"].strip() == "Summarize the following conversation.\n\n{source}\n\nSummary:"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about = ", "is not TOML"),
        ("[default]\n", "has 'default', which no suite has"),
        ("[grid]\nseed = 3\n", "suite small: grid.seed is not a list"),
    ],
)
def test_a_broken_suite_says_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_suite(str(suite(tmp_path, text)))


def test_unknown_suites_and_files() -> None:
    with pytest.raises(InputError, match="unknown suite 'thesis'"):
        load_suite("thesis")
    with pytest.raises(InputError, match="cannot be read"):
        load_suite("nowhere.toml")


def test_a_suite_is_run_once_and_goes_past_failures(peftselect, tmp_path: Path, tiny_models) -> None:
    rows = [{"text": f"w{at} {'good' if at % 2 else 'bad'} film", "label": str(at % 2)} for at in range(40)]
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"""
about = "a test"
[defaults]
task = "classification"
model = "{tiny_models("bert")}"
train = "train.jsonl"
max_steps = 2
[grid]
method = ["head_only", "nonsense"]
"""
    file = suite(tmp_path, text)
    first = peftselect("benchmark", "run", str(file), "--json")
    assert first.returncode == 1, first.stderr
    done, failed = json.loads(first.stdout)
    assert done["status"] == "ok"
    assert set(done["record"]["scores"]) == set(done["record"]["baseline"])
    assert (failed["status"], failed["because"]) == ("failed", "unknown method 'nonsense'")
    assert (tmp_path / "peftselect-output" / "small" / done["key"] / "run.json").is_file()
    second = peftselect("benchmark", "run", str(file), "--replace", "method=head_only")
    assert second.returncode == 0
    assert "1/1" in second.stderr
    assert "recorded before" in second.stderr
    assert "accuracy" in second.stdout


def test_a_dry_run_and_the_list(peftselect, tmp_path: Path) -> None:
    shown = peftselect("benchmark", "run", str(suite(tmp_path)), "--dry-run", "--json")
    assert [run["seed"] for run in json.loads(shown.stdout)] == [0, 1, 0, 1]
    assert "thesis_chapter4" in peftselect("benchmark", "list").stdout
