"""Records as files that others read: JSON lines with all of each, or a long table with one number a row."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError
from peftselect.importing.tables import COLUMNS, PAPERS
from peftselect.results import write_json_lines, write_whole

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from peftselect.record import RunRecord

_REFERENCES = {paper: number for number, paper in PAPERS.items()}
#: measurements that a table has rows for
_MEASURED = ("peak_memory_bytes", "train_seconds", "adapter_bytes", "training_loss", "validation_loss")


def export(records: Sequence[RunRecord], file: Path, *, overwrite: bool = False) -> list[RunRecord]:
    """Write ``records`` to a .jsonl or .csv file and return those that it holds.

    A table has no place for runs without a number (failed ones), nor for settings and environments; JSON lines hold
    everything. InputError for another kind of file, and for one that exists unless it is to be overwritten.
    """
    if file.suffix not in (".csv", ".jsonl"):
        raise InputError(f"{file}: records are exported to .jsonl or .csv", "give a file name with one of these ends")
    if file.exists() and not overwrite:
        raise InputError(f"{file} exists", "give another file, or --overwrite")
    if file.suffix == ".jsonl":
        write_json_lines(records, file)
        return list(records)
    written = [record for record in records if record.status == "ok" and (record.scores or record.measured)]
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for record in written:
        writer.writerows(_rows(record))
    write_whole(file, stream.getvalue().encode())
    return written


def _rows(record: RunRecord) -> Iterator[dict[str, Any]]:
    problem, candidate = record.problem, record.candidate
    table, reference = _place(record.source)
    about = {
        "table": table,
        "reference": reference,
        "model": problem.get("model"),
        "model_params": problem.get("total_parameters"),
        "modality": problem.get("modality"),
        "task_type": problem.get("task_as_written") or problem.get("task"),
        "dataset": problem.get("dataset"),
        "method_as_written": _written(record),
        "method": candidate["method"],
        "data_regime": problem.get("regime_as_written") or problem.get("regime"),
        "trainable_params": candidate.get("trainable_parameters"),
        "trainable_percent": candidate.get("trainable_percent_as_written", candidate.get("trainable_percent")),
        "n_train": problem.get("num_train_examples"),
    }
    for metric, score in record.scores.items():
        better = "true" if score.higher_is_better else "false"
        yield {**about, "metric": metric, "value": score.value, "std": score.std, "higher_is_better": better}
    for name in _MEASURED:
        if name in record.measured:
            yield {**about, "metric": name, "value": record.measured[name], "higher_is_better": "false"}


def _place(source: str) -> tuple[str, str]:
    """Table and reference: the thesis's own numbers, or for other records their source."""
    words = source.split(maxsplit=3)
    if words[0] == "thesis" and len(words) > 2:
        paper = words[3].strip("()") if len(words) > 3 else ""
        return words[2], _REFERENCES.get(paper, "thesis")
    return source, ""


def _written(record: RunRecord) -> str:
    """What the source calls the method; runs that were repeated are told apart by their seed and time."""
    name = str(record.candidate.get("method_as_written", record.candidate["method"]))
    marks = (record.note.partition(";")[0] if "method_as_written" in record.candidate else "", record.created_at)
    seed = "" if record.seed is None else f"seed {record.seed}"
    return ", ".join(filter(None, (name, *marks, seed)))
