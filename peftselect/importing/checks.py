"""What is looked at before a record is taken: names that nobody knows, and records that contradict one another."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

from peftselect import vocabulary
from peftselect.errors import DataError, UnknownNameError
from peftselect.importing.tables import BASELINES, MEASUREMENTS
from peftselect.metrics import METRICS
from peftselect.plugin_manager import host
from peftselect.results import shipped_records

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peftselect.record import RunRecord


@dataclass(frozen=True)
class Names:
    """The methods and metrics that something here speaks of: plugins, the catalogue, the shipped records."""

    methods: frozenset[str]
    metrics: frozenset[str]

    def unknown(self, record: RunRecord) -> UnknownNameError | None:
        """The first name of ``record`` that nobody knows."""
        method = record.candidate["method"]
        if method not in self.methods:
            return UnknownNameError("method", method, sorted(self.methods))
        for metric in record.scores:
            if metric not in self.metrics:
                return UnknownNameError("metric", metric, sorted(self.metrics))
        return None


@cache
def names() -> Names:
    """What is known here."""
    shipped = shipped_records(host())
    methods = {*host().entries(), *BASELINES, *(record.candidate["method"] for record in shipped)}
    metrics = {*METRICS, *MEASUREMENTS, *(metric for record in shipped for metric in record.scores)}
    return Names(frozenset(methods), frozenset(metrics))


def registered(method: str) -> str:
    """The registered name of a method that a table calls by name or alias; what nobody registered stays as it is."""
    if method in names().methods:
        return method
    try:
        return host().entry(method).name
    except UnknownNameError:
        return vocabulary.method_name(method)


class Runs:
    """The runs seen so far, by all that is known of one but its results: two records of one run must agree."""

    def __init__(self, records: Iterable[RunRecord] = ()) -> None:
        self.ids = set[str]()
        self._runs: dict[str, list[tuple[RunRecord, str]]] = {}
        for record in records:
            self.add(record, f"record {record.id}")

    def add(self, record: RunRecord, where: str) -> None:
        """Remember a record, and where it is."""
        self.ids.add(record.id)
        self._runs.setdefault(_question(record), []).append((record, where))

    def check(self, record: RunRecord, where: str) -> None:
        """Raise DataError where an earlier record of the same run has another value for a metric of this one."""
        for other, place in self._runs.get(_question(record), ()):
            for metric in sorted(record.scores.keys() & other.scores.keys()):
                here, there = record.scores[metric], other.scores[metric]
                if here != there:
                    raise DataError(
                        f"{where}: {metric} is {here.value:g}, but {place} of the same run has {there.value:g}",
                        "leave one of the two out",
                    )


def _question(record: RunRecord) -> str:
    asked = replace(record, scores={}, baseline={}, measured={}, predicted={}, metric=None).to_json(with_id=False)
    return json.dumps(asked, sort_keys=True)


def check_names(records: Iterable[RunRecord], method: str = "", metric: str = "") -> None:
    """Raise UnknownNameError for a method or metric to filter by that neither the records nor anything else has."""
    known = names()
    listed = list(records)
    methods = {*known.methods, *(record.candidate["method"] for record in listed)}
    metrics = {*known.metrics, *(name for record in listed for name in record.scores)}
    if method and method.lower() not in {name.lower() for name in methods}:
        raise UnknownNameError("method", method, sorted(methods))
    if metric and metric not in metrics:
        raise UnknownNameError("metric", metric, sorted(metrics))
