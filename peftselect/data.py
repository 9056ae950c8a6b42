"""The light reader of training data: rows with canonical column names, checked, without torch.

JSON lines, JSON, CSV, TSV and Parquet are read here; what ``datasets`` wrote to disk and hub ids through that library.
What cannot be used is one DataError that names the file, the line and the column.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.columns import choose_columns, read_cell
from peftselect.errors import DataError
from peftselect.problem import DataProfile

if TYPE_CHECKING:
    from peftselect.problem import BaseModel
    from peftselect.task import Row, Task

#: rows whose lengths are measured for a profile; more would not move a percentile
PROFILED_ROWS = 2000
#: characters a token, where no tokenizer is at hand
CHARACTERS_A_TOKEN = 4.0
#: characters of the longest CSV field
LONGEST_FIELD = 2**31 - 1
_FORMATS = "give JSON lines, JSON, CSV, TSV, Parquet, a folder that datasets wrote, or a hub id"
Numbered = tuple[int, dict[str, Any]]


def read_rows(
    path: str | Path,
    task: Task,
    columns: Mapping[str, str] | None = None,
    *,
    split: str = "train",
    limit: int | None = None,
    labels: Sequence[str] = (),
) -> list[Row]:
    """Rows of a data set with the task's own column names, each checked.

    ``columns`` maps our names to the file's where no usual alias fits; ``split`` matters for folders and hub ids that
    hold several; ``limit`` reads only the first rows; ``labels`` are those of the training rows, beside which rows
    to be scored on may have no others. Raises DataError.
    """
    name = str(path)
    raw = islice(raw_rows(path, split), limit)
    first = next(raw, None)
    if first is None:
        raise DataError(f"{name} holds no rows", "is it the right file?")
    chosen = choose_columns(name, task, list(first[1]), columns or {})
    rows: list[Row] = []
    for number, document in (first, *raw):
        row: Row = {}
        for column in task.columns:
            theirs = chosen.get(column.name)
            if theirs is None or (not column.required and document.get(theirs) in (None, "")):
                continue
            where = f"{name}:{number}"
            row[column.name] = read_cell(where, theirs, column, document.get(theirs), Path(name).parent)
        if problem := task.check_row(row):
            raise DataError(f"{name}:{number}: {problem}", f"{task.name} needs {_needs(task)}")
        if labels and task.closed_labels and (unseen := set(task.label_names([row])) - set(labels)):
            refuse_unseen(f"{name}:{number}", task, sorted(unseen)[0], labels)
        rows.append(row)
    return rows


def refuse_unseen(where: str, task: Task, label: str, labels: Sequence[str]) -> None:
    """DataError: a label of a row to be scored on is none of the training rows' ``labels``."""
    column = next((item.name for item in task.columns if item.kind in ("label", "labels", "tags")), "label")
    known = ", ".join(labels[:10]) + (", ..." if len(labels) > 10 else "")
    raise DataError(f"{where}: {column}: {label!r} is not among the training labels", f"they are: {known}")


def _needs(task: Task) -> str:
    return ", ".join(column.name for column in task.columns if column.required)


def raw_rows(path: str | Path, split: str) -> Iterator[Numbered]:
    """(line number, row) with the file's own columns, unchecked; DataError where the file cannot be read."""
    file = Path(path).expanduser()
    if file.is_dir():
        return _from_folder(file, split)
    if not file.exists():
        if _may_be_hub_id(str(path)):
            return _from_hub(str(path), split)
        raise DataError(f"there is no file {path}", _FORMATS)
    suffix = file.suffix.lower()
    if suffix == ".parquet":
        return _from_parquet(file)
    if suffix in (".csv", ".tsv"):
        return _from_csv(file, "\t" if suffix == ".tsv" else ",")
    if suffix in (".jsonl", ".ndjson", ".json"):
        return _from_json(file)
    raise DataError(f"{path}: the format {suffix or 'without a suffix'} is not known", _FORMATS)


def _may_be_hub_id(name: str) -> bool:
    return name.count("/") <= 1 and not name.startswith((".", "/", "~")) and not Path(name).suffix


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    try:
        with file.open(encoding="utf-8-sig", newline="") as handle:
            yield from enumerate(handle, 1)
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text (byte {error.start} is not UTF-8)", _FORMATS) from error
    except OSError as error:
        raise DataError(f"{file} cannot be read ({error.strerror})", "check the path and its permissions") from error


def _from_json(file: Path) -> Iterator[Numbered]:
    """JSON lines, or one JSON array of objects."""
    started = False
    for number, line in _lines(file):
        text = line.strip()
        if not text:
            continue
        if not started and text.startswith("[") and file.suffix.lower() == ".json":
            yield from _from_array(file)
            return
        started = True
        try:
            document = json.loads(text)
        except json.JSONDecodeError as error:
            raise DataError(
                f"{file}:{number} is not JSON ({error.msg}, column {error.colno})", "is the file cut off?"
            ) from error
        if not isinstance(document, dict):
            raise DataError(f"{file}:{number} is not an object", "each line is one row: {...}")
        yield number, document


def _from_array(file: Path) -> Iterator[Numbered]:
    try:
        documents = json.loads("".join(line for _, line in _lines(file)))
    except json.JSONDecodeError as error:
        raise DataError(f"{file}:{error.lineno} is not JSON ({error.msg})", "is the file cut off?") from error
    for number, document in enumerate(documents, 1):
        if not isinstance(document, dict):
            raise DataError(f"{file}: entry {number} is not an object", "the array holds one object a row")
        yield number, document


def _from_csv(file: Path, delimiter: str) -> Iterator[Numbered]:
    last = 0
    csv.field_size_limit(LONGEST_FIELD)  # the module's own limit is 128 KiB, which documents exceed

    def feed() -> Iterator[str]:
        nonlocal last
        for last, line in _lines(file):  # noqa: B007 - errors below say how far the reader got
            yield line

    reader = csv.DictReader(feed(), delimiter=delimiter, strict=True)
    try:
        for document in reader:
            if None in document or None in document.values():
                raise DataError(
                    f"{file}:{reader.line_num} has {'more' if None in document else 'fewer'} fields than the header",
                    "quote fields which hold the separator",
                )
            yield reader.line_num, dict(document)
    except csv.Error as error:
        raise DataError(f"{file}:{last} is not CSV ({error})", "is the file cut off?") from error


def _from_parquet(file: Path) -> Iterator[Numbered]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file) as parquet:
            number = 0
            for batch in parquet.iter_batches():
                for document in batch.to_pylist():
                    number += 1
                    yield number, document
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file} is not a Parquet file ({_first_line(error)})", "is the file cut off?") from error


def _from_folder(folder: Path, split: str) -> Iterator[Numbered]:
    if not any((folder / name).is_file() for name in ("dataset_info.json", "dataset_dict.json", "state.json")):
        raise DataError(f"{folder} is a folder without a data set", "give a file, or a folder that datasets wrote")
    from datasets import DatasetDict, load_from_disk

    try:
        loaded = load_from_disk(str(folder))
    except Exception as error:  # pyarrow and datasets raise many kinds for broken files
        raise DataError(f"{folder} cannot be read ({_first_line(error)})", "was it written whole?") from error
    yield from _from_datasets(str(folder), loaded if isinstance(loaded, DatasetDict) else {split: loaded}, split)


def _from_hub(name: str, split: str) -> Iterator[Numbered]:
    from datasets import load_dataset

    try:
        loaded = load_dataset(name)
    except Exception as error:  # the hub's client raises many kinds
        raise DataError(
            f"there is no file {name}, and no data set of that name could be loaded ({_first_line(error)})", _FORMATS
        ) from error
    yield from _from_datasets(name, loaded, split)


def _from_datasets(name: str, splits: Mapping[str, Any], split: str) -> Iterator[Numbered]:
    if split not in splits:
        raise DataError(f"{name} has no split {split!r}", f"it has: {', '.join(splits)}")
    data = splits[split]
    # a list of labels (tags, several labels a text) has their names one level down
    inner = {column: getattr(feature, "feature", feature) for column, feature in data.features.items()}
    named = {column: feature.names for column, feature in inner.items() if getattr(feature, "names", None)}
    for number, document in enumerate(data, 1):
        for column, names in named.items():
            cell = document[column]
            document[column] = [_named(item, names) for item in cell] if isinstance(cell, list) else _named(cell, names)
        yield number, document


def _named(label: Any, names: Sequence[str]) -> Any:
    """The name of a label's number; anything else as it is (-1 stands for a hidden label)."""
    return names[label] if isinstance(label, int) and 0 <= label < len(names) else label


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def profile_rows(rows: Sequence[Row], task: Task, base_model: BaseModel | None) -> DataProfile:
    """How many rows, labels and tokens: what the advice and the memory estimate need to know.

    Tokens are counted with the model's own ``tokenizer.json`` where it is at hand, else estimated from characters;
    ``origin`` says which.
    """
    sources, targets, origin = token_lengths(rows, task, base_model)
    sources, targets = sorted(sources), sorted(targets)
    labels = task.label_names(rows)
    return DataProfile(
        num_examples=len(rows),
        source_tokens_p50=_at(sources, 0.5),
        source_tokens_p99=_at(sources, 0.99),
        source_tokens_max=sources[-1],
        target_tokens_p50=_at(targets, 0.5),
        target_tokens_max=targets[-1],
        num_labels=len(labels) or None,
        origin=origin,
    )


def token_lengths(rows: Sequence[Row], task: Task, base_model: BaseModel | None) -> tuple[list[int], list[int], str]:
    """(length of each input, tokens of each output, how they were counted); of an even sample where rows are many.

    Inputs are counted in tokens, sound in whole seconds.
    """
    count = _Counter(base_model)
    sample = rows[:: max(1, len(rows) // PROFILED_ROWS)][:PROFILED_ROWS]
    targets = list(count.lengths([task.target_text(row) for row in sample]))
    lasting = [task.input_seconds(row) for row in sample]
    if None not in lasting:
        return [math.ceil(seconds or 0) for seconds in lasting], targets, "seconds read from the files"
    return list(count.lengths([" ".join(task.input_texts(row)) for row in sample])), targets, count.origin


def _at(values: Sequence[int], share: float) -> int:
    return values[min(round(share * (len(values) - 1)), len(values) - 1)]


class _Counter:
    """Counts tokens: with the model's tokenizer where its file is at hand, else from characters."""

    def __init__(self, base_model: BaseModel | None) -> None:
        file = None if base_model is None or base_model.folder is None else base_model.folder / "tokenizer.json"
        self._tokenizer: Any = None
        self.origin = "tokens estimated from characters"
        if file is not None and file.is_file():
            from tokenizers import Tokenizer

            try:
                self._tokenizer = Tokenizer.from_file(str(file))
            except Exception as error:  # the Rust side raises a bare Exception
                raise DataError(
                    f"{file} is not a tokenizer ({_first_line(error)})", "take it from the model"
                ) from error
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()
            self.origin = "tokens counted"

    def lengths(self, texts: Iterable[str]) -> list[int]:
        """Tokens of each text, special tokens included."""
        if self._tokenizer is None:
            return [max(1, round(len(text) / CHARACTERS_A_TOKEN) + 1) for text in texts]
        return [len(encoding.ids) for encoding in self._tokenizer.encode_batch(list(texts))]
