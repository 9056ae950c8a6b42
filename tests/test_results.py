"""The results store: nothing is lost, nothing is half written, and a broken file is one clear line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from peftselect.errors import DataError, InputError
from peftselect.record import RunRecord, Score
from peftselect.results import ResultsStore, find, read_json_lines, select, user_store

APPEND = """
import sys
from peftselect.record import RunRecord
from peftselect.results import ResultsStore
store = ResultsStore(sys.argv[1])
for number in range(20):
    store.append(RunRecord("test", "ok", {"task": "qa"}, {"method": "lora"}, seed=number, note=sys.argv[2]))
"""


def record(**changes: object) -> RunRecord:
    given: dict[str, object] = {
        "source": "our runs",
        "status": "ok",
        "problem": {"task": "qa", "model": "tiny", "dataset": "squad"},
        "candidate": {"method": "lora"},
        "metric": "f1",
        "scores": {"f1": Score(0.5, 0.01)},
    }
    return RunRecord(**{**given, **changes})  # type: ignore[arg-type]


def test_what_is_appended_is_read_again(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path / "records")
    names = [store.append(record()), store.append(record(seed=1))]
    assert sorted(names) == sorted(item.id for item in store.read())
    assert record() in store.read()
    assert sorted(path.name for path in (tmp_path / "records").iterdir()) == sorted(f"{name}.json" for name in names)


def test_the_same_record_twice_is_one(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    assert store.append(record()) == store.append(record())
    assert len(store.read()) == 1


def test_a_store_at_a_url() -> None:
    store = ResultsStore("memory://peftselect-test/records")
    assert store.read() == []
    store.append(record())
    assert store.read() == [record()]


@pytest.mark.parametrize("scheme", ["", "file://"])
def test_eight_processes_at_once_lose_nothing(tmp_path: Path, scheme: str) -> None:
    command = [sys.executable, "-c", APPEND, f"{scheme}{tmp_path / 'records'}"]
    running = [subprocess.Popen([*command, str(number)]) for number in range(8)]
    assert [process.wait(timeout=120) for process in running] == [0] * 8
    assert len(ResultsStore(tmp_path / "records").read()) == 160
    assert {path.suffix for path in (tmp_path / "records").iterdir()} == {".json"}


def test_a_store_that_another_process_is_writing_is_read_whole(tmp_path: Path) -> None:
    url = str(tmp_path / "records")
    writer = subprocess.Popen([sys.executable, "-c", APPEND, url, "other"])
    mine = ResultsStore(url)
    names = [mine.append(record(seed=number)) for number in range(20)]
    while writer.poll() is None:  # what is there is whole, at any moment, and what was there stays
        assert {item.id for item in mine.read()} >= set(names)
    assert writer.returncode == 0
    assert len(mine.read()) == 40


def test_half_a_record_of_the_same_name_is_replaced_and_another_one_is_kept(tmp_path: Path) -> None:
    store = ResultsStore(tmp_path)
    name = store.append(record())
    file = tmp_path / f"{name}.json"
    whole = file.read_bytes()
    file.write_bytes(whole[:100])
    with pytest.raises(DataError, match="not JSON"):
        store.read()
    assert store.append(record()) == name
    assert file.read_bytes() == whole
    changed = whole.replace(b"0.5", b"0.9")
    file.write_bytes(changed)
    with pytest.raises(DataError, match=rf"{name}\.json: it holds record \w{{12}} under the name of {name}$"):
        store.append(record())
    assert file.read_bytes() == changed


def test_a_store_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert ResultsStore(tmp_path / "nothing").read() == []
    assert not (tmp_path / "nothing").exists()


def test_a_store_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError) as caught:
        ResultsStore(tmp_path / "file" / "records").append(record())
    assert caught.value.message == f"{tmp_path}/file/records: records cannot be written there (Not a directory)"
    assert caught.value.hint == "set PEFTSELECT_RESULTS to a folder or URL that can be written"


def test_a_record_with_a_value_that_json_has_not(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^the record holds a value that JSON has not: "):
        ResultsStore(tmp_path).append(record(scores={"f1": Score(float("nan"))}))
    assert list(tmp_path.glob("*.json")) == []


def test_a_url_that_nothing_can_open() -> None:
    with pytest.raises(InputError, match=r"^nosuch://x: Protocol not known: nosuch$"):
        ResultsStore("nosuch://x").read()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"source": "x"', "not JSON: Expecting ',' delimiter: line 1 column 15 (char 14)"),
        ("[1]", "not a record"),
        ("{}", "field 'source' is missing"),
        ('{"schema": 9}', "schema 9 is not known"),
        ('{"source": "x", "status": "ok", "problem": 1, "candidate": {}}', "problem is not an object"),
        ('{"source": "x", "status": "ok", "problem": {}, "candidate": {}}', "candidate names no method"),
        ('{"source": "x", "status": "good", "problem": {}, "candidate": {}}', "status 'good' is not known"),
        (
            '{"source": "x", "status": "ok", "problem": {}, "candidate": {"method": "m"}, '
            '"scores": {"f1": {"value": "a"}}}',
            "scores is malformed (a value is not a number)",
        ),
        (
            '{"source": "x", "status": "ok", "problem": {}, "candidate": {"method": "m"}, '
            '"scores": {"f1": {"std": 0.1}}}',
            "scores is malformed (f1 has no value)",
        ),
        (
            '{"source": "x", "status": "ok", "problem": {}, "candidate": {"method": "m"}, '
            '"baseline": {"f1": {"value": 1, "mean": 1}}}',
            "baseline is malformed (f1 has 'mean', which no score has)",
        ),
    ],
)  # fmt: skip
def test_a_malformed_record_is_one_clear_line(tmp_path: Path, content: str, message: str) -> None:
    store = ResultsStore(tmp_path)
    store.append(record())
    (tmp_path / "bad.json").write_text(content)
    with pytest.raises(DataError) as caught:
        store.read()
    assert caught.value.message == f"{tmp_path}/bad.json: {message}"
    broken: list[str] = []
    assert store.read(broken) == [record()]
    assert broken == [caught.value.message]


def test_a_malformed_line_is_named(tmp_path: Path) -> None:
    file = tmp_path / "runs.jsonl"
    file.write_text(json.dumps(record().to_json()) + "\n\n{]\n")
    with pytest.raises(DataError, match=r"^runs\.jsonl, line 3: not JSON: "):
        list(read_json_lines(file))


def test_selecting_and_finding() -> None:
    records = [record(), record(candidate={"method": "ia3"}), record(source="theirs", scores={}, metric=None)]
    assert select(records, method="IA3") == [records[1]]
    assert select(records, metric="f1") == records[:2]
    assert select(records, source="THEIR", task="qa") == [records[2]]
    assert select(records, dataset="sst2") == []
    assert find(records, records[1].id[:8]) == records[1]
    with pytest.raises(InputError, match=r"^there is no record 'zz'$"):
        find(records, "zz")
    with pytest.raises(InputError, match=r"^3 records have ids that start with ''$"):
        find(records, "")


def test_the_users_store_is_where_the_user_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert user_store().url == str(tmp_path / "peftselect-home" / "results")
    monkeypatch.setenv("PEFTSELECT_RESULTS", "memory://shared")
    assert user_store().url == "memory://shared"


def test_listing_and_filtering(peftselect, tmp_path: Path) -> None:
    store = ResultsStore(tmp_path / "records")
    name = store.append(record(problem={"task": "qa", "dataset": "mine", "model": "tiny"}))
    done = peftselect("results", "--dataset", "mine", "--json", PEFTSELECT_RESULTS=store.url)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["total"] == 1
    assert json.loads(done.stdout)["records"][0]["id"] == name
    shown = peftselect("results", "show", name[:6], "--json", PEFTSELECT_RESULTS=store.url)
    assert json.loads(shown.stdout) == store.read()[0].to_json()


def test_the_table_and_its_limit(peftselect) -> None:
    done = peftselect("results", "--source", "table 2.5", "--method", "lora", "--limit", "2")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "2 of 12 records. --limit 0 shows all 12."
    assert peftselect("results", "--task", "juggling").stdout == "No record matches.\n"


def test_a_record_that_is_not_there(peftselect) -> None:
    done = peftselect("results", "show", "zz")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: there is no record 'zz'")
    done = peftselect("results", "--task", "qa", "list")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: options come after list")
    assert peftselect("results", "list", "--task", "juggling").stdout == "No record matches.\n"


def test_a_filter_that_nobody_knows_is_named(peftselect) -> None:
    done = peftselect("results", "--method", "lorra")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: unknown method 'lorra'")
    assert "did you mean lora" in done.stderr
    done = peftselect("results", "list", "--metric", "rouge", "--json")
    assert json.loads(done.stdout)["error"]["message"] == "unknown metric 'rouge'"


def test_a_broken_record_of_the_user_is_told_and_left_out(peftselect, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    done = peftselect("results", "--limit", "1", PEFTSELECT_RESULTS=str(tmp_path), COLUMNS="400")
    assert done.returncode == 0
    assert done.stderr.startswith(f"left out: {tmp_path}/bad.json: not JSON: ")
