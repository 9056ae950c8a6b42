"""Records from elsewhere: every form is read, nothing is taken twice, and what is wrong is one clear line."""

from __future__ import annotations

import copy
import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from peftselect import importing
from peftselect.cli import cli
from peftselect.errors import DataError, InputError, PeftSelectError
from peftselect.importing import peft_project, tables
from peftselect.importing.exporting import export
from peftselect.plugin_manager import host
from peftselect.record import RunRecord, Score
from peftselect.results import ResultsStore, shipped_records, user_store, write_json_lines

SHARED = Path(__file__).parents[2] / "shared"
ROW = {
    **dict.fromkeys(tables.COLUMNS, ""), "table": "1", "reference": "A. Author 2025", "model": "roberta-base",
    "modality": "text", "task_type": "nli", "dataset": "rte", "method": "lora", "method_as_written": "LoRA r=8",
    "data_regime": "full", "metric": "accuracy", "value": "0.8", "std": "0.01", "higher_is_better": "true",
}  # fmt: skip
RESULT: dict[str, Any] = {
    "run_info": {
        "created_at": "2026-01-01T00:00:00+00:00",
        "experiment_name": "lora/llama-3.2-3B-rank8",
        "train_config": {
            "model_id": "meta-llama/Llama-3.2-3B", "dtype": "bfloat16", "max_seq_length": 768, "batch_size": 4,
            "max_steps": 20, "seed": 0, "optimizer_kwargs": {"lr": 1e-4},
        },
        "peft_config": {"peft_type": "LORA", "r": 8, "revision": None, "inference_mode": False, "use_dora": False},
        "error_msg": "",
    },
    "train_info": {
        "cuda_memory_max": 20_000, "cuda_memory_reserved_99th": 19_000, "cuda_memory_reserved_avg": 15_000,
        "train_time": 12.5, "file_size": 400, "num_trainable_params": 100, "num_total_params": 10_000,
        "status": "success",
        "metrics": [
            {"step": 10, "valid accuracy": 0.3, "train loss": 1.0},
            {"step": 20, "test accuracy": 0.4, "forgetting": 0.02},
        ],
    },
    "meta_info": {
        "package_info": {"torch-version": "2.9", "transformers-version": "5.0", "peft-version": "0.20"},
        "system_info": {"gpu": "NVIDIA L40S"},
    },
}  # fmt: skip


def table(folder: Path, *rows: dict[str, str]) -> Path:
    file = folder / "own.csv"
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, tables.COLUMNS, extrasaction="ignore")
        writer.writeheader()
        writer.writerows({**ROW, **row} for row in rows)
    return file


def result(folder: Path, name: str, **changes: Any) -> Path:
    """A result of the PEFT project with parts replaced: ``train_info__status="failed"``."""
    document = copy.deepcopy(RESULT)
    for path, value in changes.items():
        *parents, last = path.split("__")
        part = document
        for parent in parents:
            part = part[parent]
        part[last] = value
    folder.mkdir(exist_ok=True)
    file = folder / f"{name}.json"
    file.write_text(json.dumps(document))
    return file


def own(**changes: Any) -> RunRecord:
    known: dict[str, Any] = {
        "source": "peftselect run", "status": "ok", "problem": {"task": "qa", "dataset": "mine", "model": "tiny"},
        "candidate": {"method": "lora"}, "metric": "squad_f1", "scores": {"squad_f1": Score(0.5)}, "seed": 0,
    }  # fmt: skip
    return RunRecord(**{**known, **changes})


def run(*words: object) -> tuple[int, str]:
    """The exit code and all that the command says, through the one place that turns errors into text."""
    done = CliRunner(env={"COLUMNS": "400"}).invoke(cli, ["results", *map(str, words)])
    if isinstance(done.exception, PeftSelectError):
        return done.exception.exit_code, f"{done.exception.message}\n{done.exception.hint}\n"
    return done.exit_code, done.output


def test_a_long_table_is_a_record_a_run(tmp_path: Path) -> None:
    more = {"metric": "train_seconds", "value": "12.5", "std": "", "higher_is_better": "False"}
    file = table(tmp_path, {}, {"metric": "mcc", "value": "0.5"}, more, {"method": "Houlsby", "value": "0.7"})
    lora, adapter = (record for record, _ in importing.read(file).records)
    assert lora.source == "own, table 1 (A. Author 2025)"
    assert lora.scores == {"accuracy": Score(0.8, 0.01), "matthews_correlation": Score(0.5, 0.01)}
    assert (lora.problem["task"], lora.problem["regime"], lora.problem["scale"]) == (
        "classification",
        "high",
        "fraction",
    )
    assert lora.measured == {"train_seconds": 12.5}
    assert adapter.candidate["method"] == "adapter_houlsby"


def test_a_summary_of_the_peft_project_and_a_folder_of_its_results(tmp_path: Path) -> None:
    shared = SHARED / "measurements"
    if not shared.is_dir():
        pytest.skip("the shared measurements are not here")
    found = importing.read(shared)
    assert len(found.records) == 37
    ids = {record.id for record in shipped_records(host())}
    assert all(record.id in ids for record, _ in found.records)
    assert run("import", shared)[1].startswith("0 records imported into ")
    assert user_store().read() == []


def test_results_of_the_peft_project(tmp_path: Path) -> None:
    folder = tmp_path / "results"
    result(folder, "lora")
    result(
        folder,
        "tomorrow",
        run_info__peft_config={"peft_type": "OF_TOMORROW", "r": 4},
        run_info__experiment_name="of-tomorrow/x",
    )
    last = [{"step": 3, "train loss": 1.0}]
    oom = {"run_info__error_msg": "Traceback\nCUDA out of memory. Tried", "train_info__status": "failed"}
    result(folder, "full", run_info__peft_config=None, run_info__experiment_name="full-finetuning/x",
           train_info__metrics=last, **oom)  # fmt: skip
    (folder / "notes.json").write_text("[1]")
    code, said = run("import", folder)
    assert code == 0, said
    assert "passed over: " in said and "notes.json" in said
    assert "taken, though not known here: unknown method 'of_tomorrow'" in said
    records = {record.candidate["method"]: record for record in user_store().read()}
    assert set(records) == {"lora", "of_tomorrow", "full_finetuning"}
    lora = records["lora"]
    assert (lora.status, lora.metric, lora.scores["accuracy"].value) == ("ok", "accuracy", 0.4)
    assert lora.measured["peak_memory_bytes"] == 20_000
    assert lora.candidate["hyperparameters"] == {"peft_type": "LORA", "r": 8, "use_dora": False}
    assert lora.problem["model"] == "llama-3.2-3b"
    assert lora.environment["device"] == "NVIDIA L40S"
    assert records["full_finetuning"].status == "oom"
    assert records["full_finetuning"].scores == {}
    assert run("import", folder)[1].splitlines()[-1].endswith("; 3 were known already.")


def test_finished_runs_alone_or_below_a_folder(tmp_path: Path) -> None:
    for seed in (0, 1):
        folder = tmp_path / "runs" / str(seed)
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(own(seed=seed).to_json()))
        (folder / "adapter_config.json").write_text("{}")  # whatever else a run's folder holds is no record
        (folder / "bad.json").write_text("{")
    assert [record.seed for record, _ in importing.read(tmp_path / "runs" / "1" / "run.json").records] == [1]
    assert [record.seed for record, _ in importing.read(tmp_path / "runs" / "0").records] == [0]
    assert [record.seed for record, _ in importing.read(tmp_path / "runs").records] == [0, 1]


def test_import_into_a_store_at_a_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PEFTSELECT_RESULTS", "memory://importing/records")
    assert run("import", table(tmp_path, {}))[1] == "1 records imported into memory://importing/records.\n"
    assert len(user_store().read()) == 1
    monkeypatch.setenv("PEFTSELECT_RESULTS", f"file://{tmp_path}/store")
    assert json.loads(run("import", tmp_path / "own.csv", "--json")[1])["known"] == 0
    assert len(ResultsStore(tmp_path / "store").read()) == 1


def test_what_is_exported_is_imported_again(tmp_path: Path) -> None:
    records = shipped_records(host())
    export(records, tmp_path / "all.jsonl")
    assert [record for record, _ in importing.read(tmp_path / "all.jsonl").records] == records
    thesis = [record for record in records if record.source.startswith("thesis")]
    export(thesis, tmp_path / "thesis.csv")
    assert {record.id for record, _ in importing.read(tmp_path / "thesis.csv").records} == {r.id for r in thesis}
    mine = [own(seed=seed, measured={"peak_memory_bytes": 7}) for seed in (0, 1)]
    failed = own(status="oom", scores={}, metric=None)
    assert export([*mine, failed], tmp_path / "own.csv") == mine
    again = [record for record, _ in importing.read(tmp_path / "own.csv").records]
    assert [record.scores for record in again] == [record.scores for record in mine]
    assert {record.measured["peak_memory_bytes"] for record in again} == {7}


def test_export_refuses_what_it_cannot_write(tmp_path: Path) -> None:
    code, said = run("export", tmp_path / "x.xlsx")
    assert (code, said.splitlines()[0]) == (2, f"{tmp_path}/x.xlsx: records are exported to .jsonl or .csv")
    (tmp_path / "x.csv").write_text("mine")
    code, said = run("export", tmp_path / "x.csv")
    assert (code, said.splitlines()) == (2, [f"{tmp_path}/x.csv exists", "give another file, or --overwrite"])
    assert (tmp_path / "x.csv").read_text() == "mine"
    code, said = run("export", tmp_path / "x.csv", "--overwrite", "--source", "PEFT project")
    assert (code, said) == (0, f"37 records written to {tmp_path}/x.csv.\n")
    code, said = run("export", tmp_path / "nowhere" / "x.csv")
    assert (code, said.splitlines()[0]) == (
        2,
        f"{tmp_path}/nowhere/x.csv cannot be written (No such file or directory)",
    )


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{}, {"value": "0.9"}], ", lines 2 and 3: two values for accuracy of LoRA r=8 on rte, 0.8 and 0.9"),
        ([{"value": ""}], ", line 2: accuracy has no value"),
        ([{"value": "n/a"}], ", line 2: value 'n/a' is not a number"),
        ([{}, {"value": "nan", "dataset": "cb"}], ", line 3: value 'nan' is not a number"),
        ([{"n_train": "1e3"}], ", line 2: n_train '1e3' is not a number"),
        ([{"higher_is_better": "up"}], ", line 2: higher_is_better 'up' is not known"),
        ([{"dataset": " "}], ", line 2: dataset is empty"),
        ([{"method": "lorra"}], ": unknown method 'lorra'"),
        ([{"metric": "acuracy"}], ": unknown metric 'acuracy'"),
    ],
)
def test_a_table_that_is_wrong_is_one_clear_line_and_nothing_is_stored(
    tmp_path: Path, rows: list[dict[str, str]], message: str
) -> None:
    file = table(tmp_path, {"dataset": "boolq"}, *rows)
    text = message.replace("lines 2 and 3", "lines 3 and 4").replace("line 3:", "line 4:").replace("line 2:", "line 3:")
    code, said = run("import", file)
    assert (code, said.splitlines()[0]) == (2, f"{file}{text}")
    assert said.splitlines()[1].endswith("nothing was imported, --skip-broken imports the rest")
    assert user_store().read() == []
    code, said = run("import", file, "--skip-broken")
    assert code == 0
    assert f"left out: {file}{text}" in said
    assert "boolq" in {record.problem["dataset"] for record in user_store().read()}


def test_a_table_cut_off_or_of_other_columns(tmp_path: Path) -> None:
    file = table(tmp_path, {}, {"dataset": "cb"})
    text = file.read_text()
    file.write_text(text[: text.rindex(",0.8")])
    assert run("import", file)[1].splitlines()[0] == f"{file}, line 3: the row ends before value"
    file.write_text(text.replace("0.01,true", "0.01,true,0.8,0.9"))
    assert "there are more cells than columns" in run("import", file)[1]
    file.write_text("metric,value\naccuracy,1\n")
    assert run("import", file)[1].splitlines()[0] == f"{file}: there is no column 'table'"
    file.write_text("a,b\n1,2\n")
    assert run("import", file)[1].splitlines()[0] == f"{file}: there are no results in it"
    file.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in run("import", file)[1]


def test_equal_rows_count_once_and_repeated_runs_are_for_judging(tmp_path: Path) -> None:
    assert len(importing.read(table(tmp_path, {}, {})).records) == 1
    repeated = importing.read_table(table(tmp_path, {}, {"value": "0.9"}))
    assert [record.scores["accuracy"].value for record in repeated] == [0.8, 0.9]


def test_unknown_names_are_taken_on_request(tmp_path: Path) -> None:
    file = table(tmp_path, {"method": "frobnicate"})
    assert "--allow-unknown" in run("import", file)[1]
    assert run("import", file, "--allow-unknown")[0] == 0
    assert user_store().read()[0].candidate["method"] == "frobnicate"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_info__metrics": [{"step": 1}]}, "it says success, but has no score on the test set"),
        ({"train_info__num_total_params": "many"}, "the result is malformed (invalid literal for int()"),
        ({"meta_info": None}, "there is no meta_info"),
        ({"run_info__train_config": {}}, "the result is malformed ("),
    ],
)
def test_a_result_of_the_peft_project_that_is_wrong(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    file = result(tmp_path, "bad", **changes)
    with pytest.raises(DataError) as caught:
        peft_project.from_document(json.loads(file.read_text()), str(file))
    assert caught.value.message.startswith(f"{file}: {message}")
    assert run("import", file)[0] == 2


def test_records_that_contradict_one_another(tmp_path: Path) -> None:
    first, second = own(), own(scores={"squad_f1": Score(0.6)})
    write_json_lines([first, second], tmp_path / "two.jsonl")
    code, said = run("import", tmp_path / "two.jsonl")
    where = f"{tmp_path}/two.jsonl, line"
    assert (code, said.splitlines()[0]) == (2, f"{where} 2: squad_f1 is 0.6, but {where} 1 of the same run has 0.5")
    assert user_store().read() == []
    user_store().append(first)
    write_json_lines([second], tmp_path / "one.jsonl")
    code, said = run("import", tmp_path / "one.jsonl")
    assert (
        said.splitlines()[0]
        == f"{where.replace('two', 'one')} 1: squad_f1 is 0.6, but record {first.id} of the same run has 0.5"
    )
    write_json_lines([own(seed=1, scores={"squad_f1": Score(0.6)})], tmp_path / "one.jsonl")
    assert run("import", tmp_path / "one.jsonl")[0] == 0


def test_the_same_id_with_other_content(tmp_path: Path) -> None:
    document = own().to_json()
    changed = {**document, "note": "changed by hand"}
    file = tmp_path / "run.json"
    file.write_text(json.dumps(changed))
    code, said = run("import", file)
    other = replace(own(), note="changed by hand").id
    assert code == 2
    assert said.splitlines()[0] == f"{file}: it has the id {document['id']}, but its content is that of {other}"
    del changed["id"]
    file.write_text(json.dumps(changed))
    assert run("import", file)[0] == 0


def test_files_that_are_cut_off_or_not_there(tmp_path: Path) -> None:
    text = json.dumps(own().to_json())
    for name, content, message in (
        ("cut.json", text[:-9], "not JSON: "),
        ("cut.jsonl", f"{text}\n{text[:40]}", ", line 2: not JSON: "),
        ("empty.json", "", "not JSON: "),
    ):
        file = tmp_path / name
        file.write_text(content)
        code, said = run("import", file)
        assert code == 2 and said.splitlines()[0].startswith(f"{file}{message if ',' in message else f': {message}'}")
    with pytest.raises(InputError, match="there is no such file or folder"):
        importing.read(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="there is nothing to import"):
        importing.read(tmp_path / "empty")
    assert user_store().read() == []
    code, said = run("import", tmp_path, "--skip-broken")
    assert code == 0 and said.splitlines()[-1].startswith("1 records imported")
