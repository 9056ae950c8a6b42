"""Conditions over facts: the small language of ``when`` and ``requires``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from peftselect.errors import InputError
from peftselect.facts import FACTS, Fact

#: operator -> the types of fact it can test
OPERATORS: dict[str, tuple[str, ...]] = {
    "equals": ("text", "number", "flag"),
    "not": ("text", "number", "flag"),
    "in": ("text", "number"),
    "not_in": ("text", "number"),
    "at_least": ("number",),
    "at_most": ("number",),
    "contains": ("set", "text"),
    "lacks": ("set", "text"),
}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "equals": lambda known, value: bool(known == value),
    "not": lambda known, value: bool(known != value),
    "in": lambda known, value: known in value,
    "not_in": lambda known, value: known not in value,
    "at_least": lambda known, value: bool(known >= value),
    "at_most": lambda known, value: bool(known <= value),
    "contains": lambda known, value: value in known,
    "lacks": lambda known, value: value not in known,
}
_WORDS = {"equals": "is", "not": "is not", "in": "is one of", "not_in": "is none of"}
_SCALARS: dict[str, type | tuple[type, ...]] = {"text": str, "set": str, "number": (int, float), "flag": bool}
_LIST_OPERATORS = ("in", "not_in")
Facts = Mapping[str, Any]


class At:
    """Where in a rule file we are, to say so in errors."""

    def __init__(self, file: str, rule: str) -> None:
        self.prefix = f"{file}: rule {rule}"

    def refuse(self, key: str, problem: str, hint: str = "see rules/README.md") -> InputError:
        """The error that names file, rule and key."""
        return InputError(f"{self.prefix}: {key}: {problem}", hint)


@dataclass(frozen=True)
class Condition:
    """One comparison: ``fact operator value``."""

    fact: str
    operator: str
    value: Any

    def holds(self, facts: Facts) -> bool:
        """Whether it is so; False for a fact that is not known, whatever the operator."""
        known = facts.get(self.fact)
        return known is not None and _COMPARE[self.operator](known, self.value)

    def __str__(self) -> str:
        value = self.value if isinstance(self.value, list) else [self.value]
        shown = ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in value)
        return f"{self.fact} {_WORDS.get(self.operator, self.operator.replace('_', ' '))} {shown}"


def read_conditions(at: At, key: str, table: Any) -> tuple[Condition, ...]:
    """The conditions of a TOML table ``{fact = value}`` or ``{fact = {operator = value, ...}}``; all must hold."""
    if not isinstance(table, Mapping):
        raise at.refuse(key, "a table of facts is needed")
    found = []
    for name, test in table.items():
        fact = find_fact(at, f"{key}.{name}", name)
        if not isinstance(test, Mapping):
            test = {"contains" if fact.type == "set" else "equals": test}
        for operator, value in test.items():
            where = f"{key}.{name}.{operator}"
            if fact.type not in OPERATORS.get(operator, ()):
                usable = [item for item, types in OPERATORS.items() if fact.type in types]
                raise at.refuse(where, f"{operator!r} cannot test a {fact.type}", f"use {', '.join(usable)}")
            if (operator in _LIST_OPERATORS) != isinstance(value, list) or value == []:
                raise at.refuse(where, "a list is needed" if operator in _LIST_OPERATORS else "one value is needed")
            for item in value if isinstance(value, list) else [value]:
                check_value(at, where, fact, item, closed=fact.type == "set" or operator not in ("contains", "lacks"))
            found.append(Condition(name, operator, value))
    return tuple(found)


def read_cases(at: At, key: str, cases: Any) -> tuple[Facts, ...]:
    """Situations written as tables of facts."""
    if not isinstance(cases, list) or not all(isinstance(case, Mapping) for case in cases):
        raise at.refuse(key, "a list of tables of facts is needed")
    for case in cases:
        for name, value in case.items():
            fact = find_fact(at, f"{key}.{name}", name)
            if fact.type == "set" and not isinstance(value, list):
                raise at.refuse(f"{key}.{name}", "a list is needed")
            for item in value if fact.type == "set" else [value]:
                check_value(at, f"{key}.{name}", fact, item)
    return tuple(cases)


def find_fact(at: At, where: str, name: str) -> Fact:
    """A fact by name."""
    if name not in FACTS:
        close = get_close_matches(name, FACTS, n=1)
        raise at.refuse(where, "there is no such fact", f"did you mean {close[0]}?" if close else "see rules/README.md")
    return FACTS[name]


def check_value(at: At, where: str, fact: Fact, value: Any, *, closed: bool = True) -> None:
    """Refuse a value of another type than the fact's, or (where ``closed``) one which it can never take."""
    if not isinstance(value, _SCALARS[fact.type]) or (fact.type == "number" and isinstance(value, bool)):
        raise at.refuse(where, f"{value!r} is not a {'text' if fact.type == 'set' else fact.type}")
    if closed and fact.choices and value not in fact.choices:
        raise at.refuse(where, f"{value!r} is not a value of {fact.name}", f"one of {', '.join(fact.choices)}")
