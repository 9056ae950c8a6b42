"""What is known by name, in one form: what each entry serves, its formula in numbers, where the thesis has it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from peftselect.families import LinearMethod
from peftselect.method import Method
from peftselect.plugin_manager import plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from peftselect.plugin_manager import Entry
    from peftselect.record import RunRecord
    from peftselect.shape import ModelShape
    from peftselect.task import Task

THESIS = "thesis "
_SYMBOL = re.compile(r"N_att|N_ffn|(?<![A-Za-z_])[A-Za-z](?![A-Za-z_])")
#: letters of the formulas that stand for a setting, by the setting's names
_SETTINGS = {"r": "r", "b": "bottleneck", "n": "num_virtual_tokens", "m": "division", "R": "factor_rank"}


def tasks_served(method: Method, tasks: Mapping[str, Task]) -> list[str]:
    """Names of the tasks of which the method serves a head, on some architecture that both know."""
    return [
        name
        for name, task in tasks.items()
        if any(
            kind in method.architectures and task.head_for(kind, method.heads) in method.heads for kind in task.heads
        )
    ]


def document(entry: Entry, tasks: Mapping[str, Task]) -> dict[str, Any]:
    """An entry of the catalogue as JSON: the same keys for all kinds; what does not apply is empty, no or None."""
    method = entry if isinstance(entry, Method) else None
    return {
        "name": entry.name,
        "title": entry.title,
        "aliases": list(entry.aliases),
        "kind": entry.kind,
        "because": entry.because,
        "family": entry.family,
        "thesis": list(entry.thesis),
        "references": [asdict(item) for item in entry.references],
        "tasks": tasks_served(method, tasks) if method else [],
        "architectures": sorted(method.architectures) if method else [],
        "mergeable": method.mergeable if method else False,
        "quantized_base": method.quantized_base if method else "no",
        "summary": entry.summary,
    }


def symbols(method: Method, shape: ModelShape, values: Mapping[str, Any]) -> list[str]:
    """The letters of the method's formula with what they are on this model, in the order in which they occur.

    Where it adds up over target layers, these come last: ``36 layers of 768 to 768``.
    """
    known = {
        "d": shape.hidden_size,
        "f": shape.intermediate_size,
        "g": shape.kv_size,
        "L": shape.num_layers,
        "N_att": shape.attention_count,
        "N_ffn": shape.num_layers,
        "P": shape.total_parameters,
    }
    known |= {letter: int(values[name]) for letter, name in _SETTINGS.items() if values.get(name) is not None}
    letters = dict.fromkeys(_SYMBOL.findall(method.formula))
    words = [f"{letter} = {known[letter]:,}" for letter in letters if letter in known]
    return [*words, *(_target_layers(method, shape, values) if "Σ" in method.formula else ())]


def _target_layers(method: Method, shape: ModelShape, values: Mapping[str, Any]) -> Iterator[str]:
    if isinstance(method, LinearMethod):
        counts: Counter[tuple[int, int]] = Counter()
        for linear in method.targets(shape, values):
            counts[linear.in_features, linear.out_features] += linear.count
        for (inside, outside), number in counts.items():
            yield f"{number} layers of {inside:,} to {outside:,}"


@dataclass(frozen=True)
class Reported:
    """What one table of the thesis reports of a method on one model.

    ``scores`` holds, by data set, the value and the method's place among all of the table that were scored alike.
    """

    table: str
    model: str
    scores: tuple[tuple[str, float, int, int], ...]

    @property
    def mean_place(self) -> float:
        """The place on average over the data sets."""
        return sum(place for _, _, place, _ in self.scores) / len(self.scores)


def reported(entry: Entry, records: Iterable[RunRecord]) -> list[Reported]:
    """What the thesis's tables report of a method, under its name or an alias, table by table."""
    names = {plain(name) for name in (entry.name, *entry.aliases)}
    groups: dict[tuple[str, str], dict[str, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for record in records:
        if record.source.startswith(THESIS + "table") and record.metric in record.scores:
            problem = record.problem
            amount = problem.get("regime_as_written", "")
            model = problem["model"] + (f", {amount} data" if amount in ("low", "medium", "high") else "")
            groups[record.source.removeprefix(THESIS), model][problem["dataset"]].append(record)
    found = []
    for (table, model), sets in groups.items():
        rows = [row for name, runs in sets.items() if (row := _place(name, runs, names)) is not None]
        if rows:
            found.append(Reported(table, model, tuple(rows)))
    return found


def _place(dataset: str, runs: Sequence[RunRecord], names: set[str]) -> tuple[str, float, int, int] | None:
    own = [run for run in runs if plain(run.candidate["method"]) in names]
    if not own:
        return None
    metric = str(own[0].metric)
    mine = own[0].scores[metric]
    others = [run.scores[metric].value for run in runs if run.metric == metric]
    better = sum(value > mine.value if mine.higher_is_better else value < mine.value for value in others)
    return dataset, mine.value, better + 1, len(others)
