"""What is worth knowing of the rows before training on them: overlap, duplicates, contradictions, balance, lengths.

A model that has seen its test rows scores too well (thesis 5.4): overlap is looked for after normalising case, blanks,
punctuation and Unicode forms, so that a row which was only retyped is found too.
"""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from peftselect.task import Row, Task

#: rows shown of each finding
SHOWN = 3
#: a label this many times as frequent as another is worth a word
UNBALANCED = 10
#: more labels than this are summed up, not listed
LISTED_LABELS = 6


@dataclass(frozen=True)
class Finding:
    """Rows of one kind: how many, and the first few inputs."""

    count: int
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class DataReport:
    """What was found. ``overlap`` has a finding for each pair of sets that share inputs, by name ("train and test").

    ``characters`` are the 50th, 99th and 100th percentile of the training inputs' lengths; ``labels`` counts them.
    """

    overlap: Mapping[str, Finding]
    duplicates: Finding
    conflicts: Finding
    labels: Mapping[str, int]
    characters: tuple[int, int, int]

    @property
    def overlap_sentence(self) -> str:
        """One line that names the sets which share rows, how many and one of them."""
        parts = [f"{names} share {_rows(found.count)}" for names, found in self.overlap.items()]
        first = next((found.examples[0] for found in self.overlap.values() if found.examples), "")
        return f"{' and '.join(parts)}, for example {first!r}" if parts else "no set shares a row with another"

    def lines(self) -> list[str]:
        """The findings for people, a sentence each; nothing is said of what is in order."""
        found = [self.overlap_sentence] if self.overlap else []
        if self.duplicates.count:
            found.append(f"{_rows(self.duplicates.count)} of the training data repeat an earlier one")
        if self.conflicts.count:
            example = self.conflicts.examples[0]
            found.append(f"{_inputs(self.conflicts.count)} with different answers, for example {example!r}")
        if self.labels:
            found.append(_balance(self.labels))
        found.append("inputs of {:,} characters (median), {:,} (99 %), {:,} (longest)".format(*self.characters))
        return found

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return {
            "overlap": {names: asdict(found) for names, found in self.overlap.items()},
            "duplicates": asdict(self.duplicates),
            "conflicts": asdict(self.conflicts),
            "labels": dict(self.labels),
            "characters": dict(zip(("p50", "p99", "max"), self.characters, strict=True)),
        }


def check_data(
    task: Task, train: Sequence[Row], evaluation: Sequence[Row] = (), test: Sequence[Row] = ()
) -> DataReport:
    """Check the rows of a run; sets that are empty, or the very same list as another, are not compared with it."""
    sets = {"train": train, "validation": evaluation, "test": test}
    keys = {name: [normalise(task, row) for row in rows] for name, rows in sets.items() if rows}
    pairs = [(a, b) for at, a in enumerate(keys) for b in list(keys)[at + 1 :] if sets[a] is not sets[b]]
    shared = {f"{a} and {b}": _shared(task, sets[b], keys[a], keys[b]) for a, b in pairs}
    lengths = sorted(sum(map(len, task.input_texts(row))) for row in train) or [0]
    labels = Counter(_labels(task, train))
    return DataReport(
        overlap={names: found for names, found in shared.items() if found.count},
        duplicates=_duplicates(task, train, keys.get("train", [])),
        conflicts=_conflicts(task, train, keys.get("train", [])),
        labels=dict(labels.most_common()),
        characters=(_at(lengths, 0.5), _at(lengths, 0.99), lengths[-1]),
    )


def normalise(task: Task, row: Row) -> str:
    """A row's whole input without case, punctuation, extra blanks and Unicode variants."""
    return "\n".join(_plain(text) for text in (*task.input_texts(row), *_choices(row)))


def _choices(row: Row) -> Sequence[str]:
    """Rows of multiple choice differ when their choices do."""
    return sorted(row.get("choices", ()))


def _plain(text: str) -> str:
    folded = unicodedata.normalize("NFKC", text).casefold()
    kept = "".join(" " if unicodedata.category(character)[0] in "PZC" else character for character in folded)
    return " ".join(kept.split()) or " ".join(folded.split())


def _shared(task: Task, rows: Sequence[Row], first: Sequence[str], second: Sequence[str]) -> Finding:
    known = set(first)
    return _finding(task, [row for row, key in zip(rows, second, strict=True) if key in known])


def _duplicates(task: Task, rows: Sequence[Row], keys: Sequence[str]) -> Finding:
    seen: set[tuple[str, str]] = set()
    repeated = []
    for row, key in zip(rows, keys, strict=True):
        whole = (key, _plain(task.target_text(row)))
        if whole in seen:
            repeated.append(row)
        seen.add(whole)
    return _finding(task, repeated)


def _conflicts(task: Task, rows: Sequence[Row], keys: Sequence[str]) -> Finding:
    """Inputs whose answers contradict each other; free text may answer in more than one way."""
    if task.family == "generation":
        return Finding(0)
    answers: dict[str, set[str]] = defaultdict(set)
    first: dict[str, Row] = {}
    for row, key in zip(rows, keys, strict=True):
        answers[key].add(task.target_text(row))
        first.setdefault(key, row)
    return _finding(task, [first[key] for key, found in answers.items() if len(found) > 1])


def _finding(task: Task, rows: Sequence[Row]) -> Finding:
    return Finding(len(rows), tuple(_short(task, row) for row in rows[:SHOWN]))


def _short(task: Task, row: Row) -> str:
    text = " / ".join(" ".join(part.split()) for part in task.input_texts(row))
    return text if len(text) <= 60 else text[:57] + "..."


def _labels(task: Task, rows: Sequence[Row]) -> Iterator[str]:
    """Labels to count, for tasks whose rows carry one of a closed set."""
    if any(column.kind == "label" for column in task.columns):
        yield from (task.target_text(row) for row in rows)


def _balance(labels: Mapping[str, int]) -> str:
    total = sum(labels.values())
    most, least = max(labels.values()), min(labels.values())
    if len(labels) <= LISTED_LABELS:
        shares = ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in labels.items())
        text = f"labels: {shares}"
    else:
        text = f"{len(labels)} labels of {least:,} to {most:,} rows each"
    return text + (" (unbalanced: read F1 beside accuracy)" if most >= UNBALANCED * least else "")


def _at(values: Sequence[int], share: float) -> int:
    return values[min(round(share * (len(values) - 1)), len(values) - 1)]


def _rows(count: int) -> str:
    return f"{count:,} row" + "s" * (count != 1)


def _inputs(count: int) -> str:
    return f"{count:,} input" + "s" * (count != 1)
