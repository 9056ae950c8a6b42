"""Suites: spread into runs, run once each, resumed, failures reported and gone past."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from peftselect.benchmarks import ship_suite

from peftselect.errors import DataError, InputError
from peftselect.facts import data_regime
from peftselect.plugin_manager import host
from peftselect.record import RunRecord, Score
from peftselect.resources import shipped
from peftselect.results import read_json_lines, shipped_records, user_store
from peftselect.suite import Outcome, Suite, SuiteRun, differences, load_suite, processes, run_suite, shipped_suites
from peftselect.suite.execution import attempt
from peftselect.suite.outcome import failed_record, recorded

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


def test_settings_are_a_grid_of_their_own_and_keep_the_other_keys(tmp_path: Path) -> None:
    runs = load_suite(str(suite(tmp_path, SUITE + "[grid.set]\nr = [4, 16]\nlora_dropout = [0.0, 0.1]\n"))).runs
    assert len(runs) == len({run.key for run in runs}) == 16
    assert [run.arguments["set"] for run in runs[:4]] == [
        {"r": 4, "lora_dropout": 0.0}, {"r": 4, "lora_dropout": 0.1},
        {"r": 16, "lora_dropout": 0.0}, {"r": 16, "lora_dropout": 0.1}]  # fmt: skip
    with pytest.raises(InputError, match=r"grid.set.r is not a list"):
        load_suite(str(suite(tmp_path, SUITE + "[grid.set]\nr = 4\n")))
    # what a key means does not change: records that were made are found again
    (run,) = load_suite("thesis_chapter4").runs
    assert run.key == "7df835a194"
    assert differences(load_suite(str(suite(tmp_path))))[load_suite(str(suite(tmp_path))).runs[1].key] == {
        "method": "lora", "seed": 1}  # fmt: skip


def test_replacements_and_single_runs(tmp_path: Path) -> None:
    text = SUITE + '[[run]]\nmodel = "a"\n[[run]]\nmodel = "b"\nset = { r = 8 }\n'
    runs = load_suite(str(suite(tmp_path, text)), {"method": "ia3", "seed": 5}).runs
    assert [(r.arguments["model"], r.arguments["method"], r.arguments["set"]) for r in runs] == [
        ("a", "ia3", {"r": 2}), ("b", "ia3", {"r": 8})]  # fmt: skip


@pytest.mark.parametrize("name", shipped_suites())
def test_a_shipped_suite_says_only_what_differs_from_its_defaults(name: str) -> None:
    document = tomllib.loads(shipped("benchmarks", "suites", f"{name}.toml").read_text())
    defaults = document["defaults"]
    for single in document.get("run", []):
        repeated = [key for key, value in single.items() if key != "set" and defaults.get(key) == value]
        repeated += [key for key, value in single.get("set", {}).items() if defaults.get("set", {}).get(key) == value]
        assert not repeated, single
    assert not defaults.keys() & document.get("grid", {}).keys() - {"set"}
    runs = load_suite(name).runs
    assert len({item.key for item in runs}) == len(runs), "no run is written twice"


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


def items(tmp_path: Path, model: object, *methods: str, name: str = "small", **more: object) -> Suite:
    """A suite of one run a method on forty rows, with one step each."""
    rows = [{"text": f"w{at} {'good' if at % 2 else 'bad'} film", "label": str(at % 2)} for at in range(40)]
    train = tmp_path / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    known = {"task": "classification", "model": str(model), "train": str(train), "max_steps": 1, "device": "cpu"}
    runs = [SuiteRun(name, {**known, **more, "method": method, "set": {}}) for method in methods]
    return Suite(name, "", tuple(runs))


def test_what_fails_is_recorded_as_what_it_is_and_not_run_again(
    tmp_path: Path, tiny_models, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch
    from transformers import AutoModelForMaskedLM, AutoTokenizer

    from peftselect import modeling

    broken = tmp_path / "broken"
    model = AutoModelForMaskedLM.from_pretrained(tiny_models("bert"))
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight.fill_(float("nan"))
    model.save_pretrained(broken)
    AutoTokenizer.from_pretrained(tiny_models("bert")).save_pretrained(broken)

    def run(item: SuiteRun) -> Outcome:
        return attempt(item, tmp_path / "out" / item.key, {}, {})

    (diverges,) = items(tmp_path, broken, "lora").runs
    failed, memory, bug = items(tmp_path, tiny_models("bert"), "nonsense", "lora", "bitfit").runs
    assert run(failed).status == "failed"
    told = run(diverges)
    assert (told.status, told.record and told.record.status) == ("diverged", "diverged")

    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(modeling, "build", too_large)
    told = run(memory)
    assert (told.status, told.record and told.record.status) == ("oom", "oom")

    def wrong(*_: object, **__: object) -> None:
        raise KeyError("surprise")

    monkeypatch.setattr(modeling, "build", wrong)
    told = run(bug)
    assert (told.status, told.because) == ("failed", "KeyError: 'surprise'")
    assert "Traceback" in (tmp_path / "out" / f"{bug.key}.log").read_text()

    whole = Suite("small", "", (failed, diverges, memory, bug))
    known = recorded(whole, tmp_path / "out")
    assert [known[item.key].status for item in whole.runs] == ["failed", "diverged", "oom", "failed"]
    again = run_suite(whole, tmp_path / "out")  # nothing is run, so this is quick
    assert [item.status for item in again] == ["failed before", "diverged before", "oom before", "failed before"]
    assert again[0].because == "unknown method 'nonsense'"


def test_runs_go_on_at_once_and_one_that_dies_costs_itself_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MODULE", "tests.suite_worker")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(processes.os, "cpu_count", lambda: 8)
    given = items(tmp_path, "none", "a", "killed", "b", "exits", "c", "d", "e", "f", seconds=0.4)
    heard: list[str] = []
    done = run_suite(given, tmp_path / "out", processes=4, report=lambda item: heard.append(item.status))
    assert [item.run for item in done] == list(given.runs)
    assert [item.status for item in done] == ["ok", "failed", "ok", "failed", "ok", "ok", "ok", "ok"]
    assert done[1].because.startswith("its process died (signal 9, for want of memory perhaps); see worker-")
    assert done[3].because.startswith("its process died (exit 5); see worker-")
    assert sorted(record.note for record in user_store().read()) == sorted([done[1].because, done[3].because])
    assert heard.count("running") == 8 and len(heard) == 16
    spans = [tuple(map(float, item.record.note.split()[:2])) for item in done if item.status == "ok"]
    together = [sum(began <= moment < ended for began, ended in spans) for moment, _ in spans]
    assert 2 <= max(together) <= 4
    assert {item.record.note.split()[3] for item in done if item.status == "ok"} == {"2"}, "cores are shared"
    assert sum(log.read_text().count("run ") for log in (tmp_path / "out").glob("worker-*.log")) == 8


def test_runs_that_others_recorded_in_the_store_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "MODULE", "tests.suite_worker")
    given = items(tmp_path, "none", "a", "b", "exits", seconds=0)
    user_store().append(failed_record(given.runs[0], "", "ok"))
    first = run_suite(given, tmp_path / "out")
    assert [item.status for item in first] == ["recorded before", "ok", "failed"]
    assert [item.status for item in run_suite(given, tmp_path / "out", retry=True)] == [
        "recorded before",
        "ok",
        "failed",
    ]
    other = items(tmp_path, "none", "a", name="other", seconds=0)
    assert recorded(other, tmp_path / "out") == {}
    (tmp_path / "out" / given.runs[1].key).mkdir()
    (tmp_path / "out" / given.runs[1].key / "run.json").write_text("{")
    with pytest.raises(DataError, match=r"run\.json: not a record"):
        run_suite(given, tmp_path / "out")


def test_a_run_that_was_interrupted_goes_on_from_its_checkpoint(tmp_path: Path, tiny_models) -> None:
    import peftselect
    from peftselect.training.interrupts import Interrupted
    from peftselect.training.unfinished import newest, work_folder
    from tests.test_interrupted import AtStep, order_of, signalled

    order = order_of(tmp_path, tiny_models("bert"), "lora")
    folder = Path(order["output"])
    with pytest.raises(Interrupted):
        peftselect.run(**order, observer=AtStep(7, signalled(signal.SIGTERM)))
    saved = newest(work_folder(folder))
    assert saved is not None and saved.step == 7
    order = {name: value for name, value in order.items() if name not in ("output", "settings")}
    (item,) = (SuiteRun("small", {**order, "set": {"num_train_epochs": 1}}),)  # begun anew it would take five steps
    told = attempt(item, folder, {}, {"node": "here"})
    assert (told.status, told.because) == ("ok", "")
    assert told.record is not None and told.record.measured["steps"] == saved.total == 20
    assert told.record.environment["suite"] == {"name": "small", "key": item.key, "node": "here"}


def test_a_folder_that_another_run_holds_is_no_failure(tmp_path: Path, tiny_models) -> None:
    from peftselect.training.unfinished import held

    (item,) = items(tmp_path, tiny_models("bert"), "head_only").runs
    with held(tmp_path / "out", keep=False):
        told = attempt(item, tmp_path / "out", {}, {})
    assert (told.status, told.because) == ("not run", f"another run is writing {tmp_path / 'out'}")
    assert user_store().read() == []


@pytest.mark.slow
def test_a_suite_that_is_stopped_or_killed_goes_on_where_it_was(peftselect, tmp_path: Path, tiny_models) -> None:
    from peftselect.training.unfinished import newest, work_folder

    items(tmp_path, "none", "lora")
    text = f"""
about = "long runs"
[defaults]
task = "classification"
model = "{tiny_models("bert")}"
train = "train.jsonl"
method = "lora"
checkpoint_every = "1s"
max_steps = 900
[defaults.set]
num_train_epochs = 400
[grid]
seed = [0, 1]
"""
    file = suite(tmp_path, text)
    keys = [item.key for item in load_suite(str(file)).runs]
    output = tmp_path / "peftselect-output" / "small"
    command = [sys.executable, "-m", "peftselect", "benchmark", "run", str(file)]

    def stop_at_a_checkpoint(number: signal.Signals) -> int:
        process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 300
        while process.poll() is None and newest(work_folder(output / keys[0])) is None:
            assert time.monotonic() < until
            time.sleep(0.1)
        process.send_signal(number)
        return process.wait(timeout=120)

    assert stop_at_a_checkpoint(signal.SIGTERM) == 128 + signal.SIGTERM
    saved = newest(work_folder(output / keys[0]))
    assert saved is not None and 0 < saved.step < 900
    done = peftselect("benchmark", "run", str(file), "--json")
    assert done.returncode == 0, done.stderr
    records = [item["record"] for item in json.loads(done.stdout)]
    assert records[0]["measured"]["steps"] >= saved.step
    assert newest(work_folder(output / keys[0])) is None
    assert [record["environment"]["suite"]["key"] for record in records] == keys
    assert len(user_store().read()) == 2


def test_a_dry_run_and_the_list(peftselect, tmp_path: Path) -> None:
    shown = peftselect("benchmark", "run", str(suite(tmp_path)), "--dry-run", "--json")
    assert [run["seed"] for run in json.loads(shown.stdout)] == [0, 1, 0, 1]
    assert "thesis_chapter4" in peftselect("benchmark", "list").stdout


def test_finished_runs_of_a_suite_become_shipped_records(tmp_path: Path) -> None:
    names = ["lora", "ia3", "bitfit", "dora", "pissa", "olora", "compacter", "adalora"]
    file = tmp_path / "mine.toml"
    file.write_text(f'about = "two seeds"\n[grid]\nseed = [0, 1]\nmethod = {names}\n')
    suite = load_suite(str(file))
    record = RunRecord(
        "peftselect run", "ok", {"task": "classification", "dataset": "news"}, {"method": "lora"}, "accuracy",
        {"accuracy": Score(0.5)}, measured={"steps": 7, "train_seconds": 3.0}, predicted={"peak_memory_bytes": 1},
        environment={"torch": "2", "platform": "somewhere"},
    )  # fmt: skip

    def ship(runs: Sequence[SuiteRun], folder: str, score: float = 0.5) -> list[RunRecord]:
        """Write these runs' records into a folder and ship them."""
        for item in runs:
            done = tmp_path / folder / item.key
            done.mkdir(parents=True)
            changed = replace(
                record,
                seed=item.arguments["seed"],
                candidate={"method": item.arguments["method"]},
                scores={"accuracy": Score(score)},
                environment={**record.environment, "suite": {"name": "mine", "key": item.key}},
            )
            (done / "run.json").write_text(json.dumps(changed.to_json()))
        number = ship_suite.ship(suite, tmp_path / folder, tmp_path / "out")
        written = list(read_json_lines(tmp_path / "out" / "news.jsonl"))
        assert len(written) == number
        return written

    written = ship(suite.runs[:-1], "runs")  # the second seed lacks a method, so it waits
    assert sorted(item.candidate["method"] for item in written) == sorted(names)
    for item in written:
        assert (item.source, item.seed, item.scores) == ("peftselect suite mine", 0, record.scores)
        assert (item.measured, item.predicted) == ({"steps": 7}, {})
        assert set(item.environment) == {"torch", "suite"}
    # what is shipped already stays; what was run again takes its place
    written = ship(suite.runs[:1], "again", score=0.75)
    assert {item.candidate["method"]: item.scores["accuracy"].value for item in written} == {
        **dict.fromkeys(names, 0.5), "lora": 0.75,
    }  # fmt: skip


def test_what_ships_of_our_suite_is_what_the_predictor_needs() -> None:
    records = [record for record in shipped_records(host()) if record.source == "peftselect suite minilm"]
    suite = load_suite("minilm")
    assert 0 < len(records) <= len(suite.runs) >= 150
    methods = {item.arguments["method"] for item in suite.runs}
    assert len(methods) >= 12
    for record in records:
        problem = record.problem
        assert record.candidate["method"] in methods and record.metric in record.scores
        assert problem["regime"] == data_regime(problem["num_train_examples"])
        assert (problem["model"], problem["model_type"]) == ("all-MiniLM-L6-v2", "bert")
        assert problem["num_test_examples"] >= 100 and record.seed is not None
        assert not re.search(r'"/|[A-Za-z]:\\\\', json.dumps(record.to_json()))  # no path of the machine
