"""The reader: every format, every alias, and every way a file can be wrong, said in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from peftselect.data import profile_rows, read_rows
from peftselect.errors import DataError
from peftselect.plugin_manager import host
from peftselect.problem import BaseModel

CLASSIFICATION = host().task("classification")
ROWS = [{"text": "good film", "label": "positive"}, {"text": "bad, bad film", "label": "negative"}]


def write(folder: Path, name: str, content: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def lines(rows: list[dict[str, object]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets import Dataset, DatasetDict

    write(tmp_path, "a.jsonl", lines(ROWS))
    write(tmp_path, "b.json", json.dumps(ROWS, indent=1))
    write(tmp_path, "c.csv", 'text,label\ngood film,positive\n"bad, bad film",negative\n')
    write(tmp_path, "d.tsv", "text\tlabel\ngood film\tpositive\nbad, bad film\tnegative\n")
    write(tmp_path, "e.jsonl", "\ufeff" + lines(ROWS) + "\n\n")
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "f.parquet")
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "g")
    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "h")
    for name in ("a.jsonl", "b.json", "c.csv", "d.tsv", "e.jsonl", "f.parquet", "g", "h"):
        assert read_rows(tmp_path / name, CLASSIFICATION) == ROWS, name


def test_class_labels_of_datasets_become_names(tmp_path: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Value

    features = Features({"text": Value("string"), "label": ClassLabel(names=["no", "yes"])})
    Dataset.from_dict({"text": ["a"], "label": [1]}, features=features).save_to_disk(tmp_path / "d")
    assert read_rows(tmp_path / "d", CLASSIFICATION) == [{"text": "a", "label": "yes"}]


@pytest.mark.parametrize(
    ("task", "theirs", "ours"),
    [
        ("summarization", {"dialogue": "a", "summary": "b"}, {"source": "a", "target": "b"}),
        ("summarization", {"article": "a", "highlights": "b"}, {"source": "a", "target": "b"}),
        ("text_generation", {"instruction": "a", "output": "b"}, {"source": "a", "target": "b"}),
        ("text_generation", {"prompt": "a", "completion": "b"}, {"source": "a", "target": "b"}),
        ("classification", {"Sentence1": "a", "sentence2": "b", "label": 1},
         {"text": "a", "text_pair": "b", "label": "1"}),
        ("classification", {"premise": "a", "hypothesis": "b", "label": "x"},
         {"text": "a", "text_pair": "b", "label": "x"}),
        ("classification", {"question": "a", "sentence": "b", "label": "x"},
         {"text": "a", "text_pair": "b", "label": "x"}),
        ("similarity", {"sentence1": "a", "sentence2": "b", "score": "3.5"},
         {"text": "a", "text_pair": "b", "label": 3.5}),
        ("ner", {"words": ["a", "b"], "ner_tags": ["O", "B-X"]}, {"tokens": ["a", "b"], "tags": ["O", "B-X"]}),
        ("qa", {"context": "x a", "question": "q", "answers": {"text": ["a"], "answer_start": [2]}},
         {"context": "x a", "question": "q", "answers": {"text": ["a"], "answer_start": [2]}}),
        ("qa", {"context": "x a", "question": "q", "answer": "a"},
         {"context": "x a", "question": "q", "answers": {"text": ["a"], "answer_start": [2]}}),
        ("multiple_choice", {"premise": "p", "options": ["a", "b"], "answer": 1},
         {"question": "p", "choices": ["a", "b"], "label": 1}),
    ],
)  # fmt: skip
def test_the_usual_names_are_known(tmp_path: Path, task: str, theirs: dict, ours: dict) -> None:
    assert read_rows(write(tmp_path, "a.jsonl", lines([theirs])), host().task(task)) == [ours]


def test_columns_can_be_named(tmp_path: Path) -> None:
    file = write(tmp_path, "a.jsonl", lines([{"body": "x", "verdict": "y", "text": "other"}]))
    rows = read_rows(file, CLASSIFICATION, {"text": "body", "label": "verdict"})
    assert rows == [{"text": "x", "label": "y"}]


def test_a_limit_reads_no_further(tmp_path: Path) -> None:
    file = write(tmp_path, "a.jsonl", lines(ROWS) + "broken")
    assert len(read_rows(file, CLASSIFICATION, limit=2)) == 2


FORMATS = "give JSON lines, JSON, CSV, TSV, Parquet, a folder that datasets wrote, or a hub id"


@pytest.mark.parametrize(
    ("name", "content", "message", "hint"),
    [
        ("a.jsonl", None, "there is no file {file}", FORMATS),
        ("a.jsonl", "", "{file} holds no rows", "is it the right file?"),
        ("a.jsonl", "\n \n", "{file} holds no rows", "is it the right file?"),
        ("a.xlsx", "x", "{file}: the format .xlsx is not known", FORMATS),
        ("a.jsonl", b"\x89PNG\xff", "{file} is not text (byte 0 is not UTF-8)", FORMATS),
        ("a.jsonl", lines(ROWS) + '{"text": "cu', "{file}:3 is not JSON (Unterminated string starting at, column 10)",
         "is the file cut off?"),
        ("a.jsonl", "[1]\n", "{file}:1 is not an object", "each line is one row: {...}"),
        ("a.json", "[{}", "{file}:1 is not JSON (Expecting ',' delimiter)", "is the file cut off?"),
        ("a.csv", "text,label\nx\n", "{file}:2 has fewer fields than the header",
         "quote fields which hold the separator"),
        ("a.csv", "text,label\nx,y,z\n", "{file}:2 has more fields than the header",
         "quote fields which hold the separator"),
        ("a.csv", 'text,label\n"x,y\n', "{file}:2 is not CSV (unexpected end of data)", "is the file cut off?"),
        ("a.parquet", b"PAR1 broken", "{file} is not a Parquet file", "is the file cut off?"),
        ("a.jsonl", lines([{"a": 1, "b": 2}]), "{file} has no column for the text of classification (it has: a, b)",
         "name it: --columns text=YOURS; known names: text, text_a"),
        ("a.jsonl", lines([ROWS[0], {"text": "", "label": "x"}]), "{file}:2: column 'text' is empty",
         "fill it or leave the row out"),
        ("a.jsonl", lines([ROWS[0], {"label": "x"}]), "{file}:2: column 'text' is empty",
         "fill it or leave the row out"),
        ("a.jsonl", lines([{"text": ["x"], "label": "x"}]), "{file}:1: column 'text' is ['x']", "it should hold text"),
        ("a.jsonl", lines([{"text": "x", "label": {"y": 1}}]), "{file}:1: column 'label' is {'y': 1}",
         "it should hold a label (text or a whole number)"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_said(
    tmp_path: Path, name: str, content: str | bytes | None, message: str, hint: str
) -> None:
    file = tmp_path / name
    if content is not None:
        write(tmp_path, name, content)
    with pytest.raises(DataError) as caught:
        read_rows(file, CLASSIFICATION)
    expected = message.replace("{file}", str(file))
    assert caught.value.message.startswith(expected)
    assert "\n" not in caught.value.message
    assert caught.value.hint.startswith(hint)


@pytest.mark.parametrize(
    ("task", "row", "message"),
    [
        ("ner", {"tokens": ["a"], "tags": ["O", "O"]}, "1 tokens and 2 tags"),
        ("multiple_choice", {"question": "q", "choices": ["a"], "label": 0}, "column 'choices' is ['a']"),
        ("multiple_choice", {"question": "q", "choices": ["a", "b"], "label": 2}, "label 2 of 2 choices"),
        ("multiple_choice", {"question": "q", "choices": ["a", "b"], "label": -1}, "column 'label' is -1"),
        ("similarity", {"text": "a", "text_pair": "b", "label": "nan"}, "column 'label' is 'nan'"),
        ("qa", {"context": "abc", "question": "q", "answers": {"text": ["b"], "answer_start": [0]}},
         "the answer 'b' does not stand at 0 of the context"),
        ("qa", {"context": "abc", "question": "q", "answers": {"text": ["b"], "answer_start": [1, 2]}},
         "1 answers and 2 starts"),
    ],
)  # fmt: skip
def test_rows_that_do_not_fit_the_task_are_named(tmp_path: Path, task: str, row: dict, message: str) -> None:
    file = write(tmp_path, "a.jsonl", lines([row]))
    with pytest.raises(DataError) as caught:
        read_rows(file, host().task(task))
    assert caught.value.message.startswith(f"{file}:1: {message}")


def test_overrides_must_exist(tmp_path: Path) -> None:
    file = write(tmp_path, "a.jsonl", lines(ROWS))
    with pytest.raises(DataError, match="classification has no column 'txt'"):
        read_rows(file, CLASSIFICATION, {"txt": "text"})
    with pytest.raises(DataError, match=r"has no column 'body'"):
        read_rows(file, CLASSIFICATION, {"text": "body"})


def test_folders_without_data_and_unknown_hub_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match="is a folder without a data set"):
        read_rows(tmp_path, CLASSIFICATION)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    with pytest.raises(DataError, match="there is no file nobody/nothing, and no data set of that name"):
        read_rows("nobody/nothing", CLASSIFICATION)


def test_lengths_are_counted_with_the_models_own_tokenizer(tmp_path: Path, tiny_models) -> None:
    folder = tiny_models("t5")
    task = host().task("summarization")
    rows = [{"source": "w1 w2 w3 w4", "target": "w1"}, {"source": "w1 w2", "target": "w1 w2 w3"}]
    counted = profile_rows(rows, task, BaseModel("t5", "t5", str(folder), "folder", {"model_type": "t5"}, folder))
    assert (counted.num_examples, counted.source_tokens_max, counted.target_tokens_max) == (2, 5, 4)
    assert counted.origin == "tokens counted"
    guessed = profile_rows(rows, task, None)
    assert guessed.origin == "tokens estimated from characters"
    assert guessed.num_labels is None


def test_labels_are_counted(tmp_path: Path) -> None:
    rows = read_rows(write(tmp_path, "a.jsonl", lines(ROWS)), CLASSIFICATION)
    assert profile_rows(rows, CLASSIFICATION, None).num_labels == 2
