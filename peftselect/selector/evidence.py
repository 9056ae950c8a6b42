"""Rules beside records: what the rules would have said of a printed comparison, and how good both together are."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from peftselect.facts import kind_facts
from peftselect.features import method_traits, observations
from peftselect.knowledge import fire, load_rules
from peftselect.predictor import Predictor
from peftselect.predictor.assessment import Assessment, assess
from peftselect.predictor.choice import choose
from peftselect.predictor.judging import judge
from peftselect.selector.scoring import told_by_records

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from peftselect.features import Cell
    from peftselect.knowledge import Rule
    from peftselect.method import Method
    from peftselect.plugin_manager import PluginHost
    from peftselect.predictor import Settings
    from peftselect.record import RunRecord

_TABLE = re.compile(r"\b\d\.\d+\b")


def rule_points(rules: Sequence[Rule], methods: Mapping[str, Method]) -> Callable[[Cell, str], tuple[float, float]]:
    """Points of the rules for a method in a comparison: those weighed beside records, and those that count in full.

    Rules that rest on the table which prints the comparison say nothing of it, so that nobody is judged by what he was
    told. Facts that a table does not print (budgets, parameter counts of a method, traits) are not known.
    """
    known: dict[tuple[Cell, str], tuple[float, float]] = {}

    def points(cell: Cell, name: str) -> tuple[float, float]:
        if (cell, name) not in known:
            method = methods.get(name)
            facts = kind_facts(method) if method else {"method": name}
            told = fire([rule for rule in rules if not _rests_on(rule, cell)], _facts(cell), facts)
            weighed = sum(item.points for item in told if told_by_records(item))
            known[cell, name] = (weighed, sum(item.points for item in told) - weighed)
        return known[cell, name]

    return points


def _rests_on(rule: Rule, cell: Cell) -> bool:
    return bool({*_TABLE.findall(rule.source)} & {*_TABLE.findall(cell.source)})


def _facts(cell: Cell) -> dict[str, Any]:
    modality = "speech" if cell.family == "speech" else "code" if cell.task.startswith("code") else "text"
    return {
        "task": cell.task,
        "task_family": cell.family,
        "modality": modality,
        "model_type": cell.model_type,
        "total_parameters": cell.total_parameters,
        "data_regime": cell.regime,
        "metric": cell.metric,
        "prefer": "quality",
        "traits": frozenset(),
    }


def evaluate(
    records: Iterable[RunRecord], host: PluginHost, held_out: str, on: Sequence[RunRecord] | None = None
) -> Assessment:
    """Judge the predictor, the rules and both: on the thesis's tables with groups held out, or ``on`` other records.

    Sources that ``on`` has are not learned from.
    """
    methods = host.methods()
    traits = {name: method_traits(method) for name, method in methods.items()}
    points = rule_points(load_rules(host.rule_files()), methods)
    learned = observations(records)
    if on is None:
        return assess(learned, held_out, traits, points, lambda cell: cell.source.startswith("thesis"))
    asked = observations(on)
    sources = {item.cell.source for item in asked}
    others = [item for item in learned if item.cell.source not in sources]
    fitted = Predictor(others, traits, choose(others, traits, points))
    return Assessment("source", judge(fitted, asked, points))


def refit(records: Iterable[RunRecord], host: PluginHost) -> Settings:
    """The settings that the records speak for."""
    methods = host.methods()
    traits = {name: method_traits(method) for name, method in methods.items()}
    return choose(observations(records), traits, rule_points(load_rules(host.rule_files()), methods))
