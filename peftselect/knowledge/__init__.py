"""Rules: published guidance as conditions over named facts, read from TOML (the language: rules/README.md)."""

from __future__ import annotations

import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from peftselect.errors import InputError
from peftselect.knowledge.conditions import At, Condition, Facts, read_cases, read_conditions

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from pathlib import Path

__all__ = ["EFFECTS", "EVIDENCE", "MAX_WEIGHT", "Condition", "Firing", "Rule", "check", "fire", "load_rules"]

Effect = Literal["prefer", "avoid", "require", "forbid", "set"]
EFFECTS: tuple[str, ...] = ("prefer", "avoid", "require", "forbid", "set")
EVIDENCE: tuple[str, ...] = ("published", "measured", "folklore")
#: a weight is in points of the task's metric, so that rules and records add up; more than this is no longer advice
MAX_WEIGHT = 5.0
_KEYS = {"name", "when", "requires", "effect", "weight", "set", "reason", "source", "evidence", "fires", "silent"}
_TEXTS = ("name", "effect", "reason", "source", "evidence")


@dataclass(frozen=True)
class Rule:
    """One piece of guidance.

    It fires for a method when every condition of ``when`` holds. ``prefer`` and ``avoid`` move the method by
    ``weight`` points of the task's metric; ``forbid`` excludes it; ``require`` excludes it unless ``requires`` holds as
    well; ``set`` proposes values for its hyperparameters and for the recipe.
    """

    name: str
    effect: Effect
    when: tuple[Condition, ...]
    reason: str
    source: str
    evidence: str
    weight: float = 0.0
    requires: tuple[Condition, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    fires: tuple[Facts, ...] = ()
    silent: tuple[Facts, ...] = ()
    file: str = ""

    @property
    def methods(self) -> frozenset[str]:
        """Names of the methods it is about; empty where it addresses them by structure, or all."""
        named = [item.value for item in self.when if item.fact == "method" and item.operator in ("equals", "in")]
        return frozenset(name for value in named for name in ([value] if isinstance(value, str) else value))

    def applies(self, facts: Facts) -> bool:
        """Whether the rule has something to say about a method in a situation."""
        if not all(condition.holds(facts) for condition in self.when):
            return False
        return self.effect != "require" or not all(condition.holds(facts) for condition in self.requires)


@dataclass(frozen=True)
class Firing:
    """A rule that fired for a method.

    ``points`` is what it adds to the method's score (negative for ``avoid``, 0 for the other effects); ``excludes``
    whether the method is out; ``values`` the settings it proposes.
    """

    rule: Rule

    @property
    def effect(self) -> Effect:
        """The rule's effect."""
        return self.rule.effect

    @property
    def weight(self) -> float:
        """The rule's weight in points."""
        return self.rule.weight

    @property
    def points(self) -> float:
        """Signed weight."""
        return {"prefer": self.rule.weight, "avoid": -self.rule.weight}.get(self.rule.effect, 0.0)

    @property
    def excludes(self) -> bool:
        """Whether the method is not to be offered."""
        return self.rule.effect in ("forbid", "require")

    @property
    def values(self) -> Mapping[str, Any]:
        """Proposed settings."""
        return self.rule.values

    @property
    def text(self) -> str:
        """The reason, for a reader."""
        return self.rule.reason

    @property
    def source(self) -> str:
        """Where the reason comes from."""
        return self.rule.source

    @property
    def evidence(self) -> str:
        """published, measured or folklore."""
        return self.rule.evidence


def fire(rules: Iterable[Rule], facts_of_problem: Facts, facts_of_method: Facts) -> list[Firing]:
    """The rules that fire for one method, in the order of the rules."""
    facts = {**facts_of_problem, **facts_of_method}
    return [Firing(rule) for rule in rules if rule.applies(facts)]


def check(rules: Sequence[Rule]) -> list[str]:
    """Run every rule's cases; one line for each that goes wrong."""
    problems = []
    for rule in rules:
        for kind, cases, expected in (("fires", rule.fires, True), ("silent", rule.silent, False)):
            if not cases:
                problems.append(f"{rule.file}: rule {rule.name!r}: {kind} has no case")
            for number, case in enumerate(cases, 1):
                if rule.applies(case) is not expected:
                    says = "stays silent" if expected else "fires"
                    problems.append(f"{rule.file}: rule {rule.name!r}: {kind} case {number} {says}")
    return problems


def load_rules(files: Iterable[Traversable | Path]) -> list[Rule]:
    """Read rule files; InputError names the file, the rule and the key of what is wrong. Names are unique."""
    rules: dict[str, Rule] = {}
    for file in files:
        for rule in _read(file):
            if rule.name in rules:
                raise InputError(
                    f"{file.name}: rule {rule.name!r}: the name is taken by {rules[rule.name].file}", "rename it"
                )
            rules[rule.name] = rule
    return list(rules.values())


def _read(file: Traversable | Path) -> list[Rule]:
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file.name}: {error.strerror or error}", "give a TOML file with [[rule]] tables") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{file.name}: not TOML: {error}", "see rules/README.md") from error
    tables = document.get("rule")
    if not isinstance(tables, list) or not tables:
        raise InputError(f"{file.name}: there is no [[rule]] table", "see rules/README.md")
    return [_rule(file.name, number, table) for number, table in enumerate(tables, 1)]


def _rule(file: str, number: int, table: Mapping[str, Any]) -> Rule:
    at = At(file, repr(table["name"]) if isinstance(table.get("name"), str) else str(number))
    for key in table:
        if key not in _KEYS:
            raise at.refuse(key, "not a key of a rule", f"the keys are {', '.join(sorted(_KEYS))}")
    for key in _TEXTS:
        if not isinstance(table.get(key), str) or not table[key].strip():
            raise at.refuse(key, "a text is needed")
    for key, allowed in (("effect", EFFECTS), ("evidence", EVIDENCE)):
        if table[key] not in allowed:
            raise at.refuse(key, f"{table[key]!r} is not known", f"one of {', '.join(allowed)}")
    return Rule(
        name=table["name"],
        effect=table["effect"],
        when=read_conditions(at, "when", table.get("when", {})),
        reason=table["reason"],
        source=table["source"],
        evidence=table["evidence"],
        weight=_weight(at, table),
        requires=read_conditions(at, "requires", _only_for(at, table, "requires", "require")),
        values=_only_for(at, table, "set", "set"),
        fires=read_cases(at, "fires", table.get("fires", [])),
        silent=read_cases(at, "silent", table.get("silent", [])),
        file=file,
    )


def _weight(at: At, table: Mapping[str, Any]) -> float:
    weighed = table["effect"] in ("prefer", "avoid")
    if not weighed and "weight" in table:
        raise at.refuse("weight", f"effect {table['effect']!r} has none", "only prefer and avoid have a weight")
    if not weighed:
        return 0.0
    weight = table.get("weight")
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not 0 < weight <= MAX_WEIGHT:
        raise at.refuse("weight", f"a number of points above 0 and up to {MAX_WEIGHT:g} is needed")
    return float(weight)


def _only_for(at: At, table: Mapping[str, Any], key: str, effect: str) -> Mapping[str, Any]:
    values = table.get(key, {})
    if (table["effect"] == effect) != bool(values) or not isinstance(values, Mapping):
        raise at.refuse(key, f"a table that belongs to effect {effect!r} alone")
    return values
