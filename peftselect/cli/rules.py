"""List the rules of the selection guidance, show one with its cases, or check rule files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from peftselect.cli import options
from peftselect.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.knowledge import Rule


@click.command()
@click.argument("name", required=False)
@click.argument("files", nargs=-1)
@options.json_option
def rules(name: str | None, files: tuple[str, ...], as_json: bool) -> int:
    """List the rules; with NAME show one with its cases; `rules check [FILES]` runs the cases of all rules or of FILES.

    How to write rules: rules/README.md.
    """
    from peftselect.knowledge import load_rules
    from peftselect.plugin_manager import host

    if name == "check":
        return _check(files, as_json)
    if files:
        raise InputError(
            f"unexpected argument {files[0]!r}", "one rule at a time; files go to `peftselect rules check`"
        )
    known = {rule.name: rule for rule in load_rules(host().rule_files())}
    if name is None:
        _list(list(known.values()), as_json)
    elif name in known:
        _show(known[name], as_json)
    else:
        raise UnknownNameError("rule", name, sorted(known))
    return 0


def _check(files: tuple[str, ...], as_json: bool) -> int:
    from peftselect.cli import console
    from peftselect.knowledge import check, load_rules
    from peftselect.plugin_manager import host

    found = load_rules([Path(file) for file in files] or host().rule_files())
    problems = check(found)
    cases = sum(len(rule.fires) + len(rule.silent) for rule in found)
    if as_json:
        console.print_json({"schema": 1, "rules": len(found), "cases": cases, "problems": problems})
    else:
        for problem in problems:
            console.say(problem)
        outcome = f"{len(problems)} go wrong" if problems else "all as written"
        console.say(f"{len(found)} rule{'s' * (len(found) != 1)}, {cases} cases: {outcome}.")
    return 2 if problems else 0


def _list(found: list[Rule], as_json: bool) -> None:
    from peftselect.cli import console
    from peftselect.plugin_manager import host

    if as_json:
        console.print_json({"schema": 1, "rules": [_document(rule) for rule in found]})
        return
    rows = [(rule.name, _what(rule), rule.evidence, rule.source) for rule in found]
    registered = set(host().methods())
    waiting = sum(bool(rule.methods) and not rule.methods & registered for rule in found)
    caption = "Points are of the task's metric. `peftselect rules NAME` shows one with its cases."
    if waiting:
        caption += f" {waiting} speak of methods that are not registered here."
    console.table("Rules", ("rule", "effect", "evidence", "source"), rows, caption=caption, keep=("rule",))


def _show(rule: Rule, as_json: bool) -> None:
    from peftselect.cli import console

    if as_json:
        console.print_json({"schema": 1, **_document(rule)})
        return
    console.heading(rule.name)
    console.say(rule.reason)
    console.say()
    pairs = [("when", "; ".join(map(str, rule.when)) or "always"), ("effect", _what(rule))]
    pairs += [("requires", "; ".join(map(str, rule.requires)))] if rule.requires else []
    console.facts([*pairs, ("evidence", rule.evidence), ("source", rule.source), ("file", rule.file)])
    console.say()
    cases = [("fires", case) for case in rule.fires] + [("silent", case) for case in rule.silent]
    console.table("Cases", ("must be", "in this situation"), [(kind, _situation(case)) for kind, case in cases])


def _what(rule: Rule) -> str:
    if rule.effect == "set":
        return "set " + ", ".join(f"{name} = {_value(value)}" for name, value in rule.values.items())
    return f"{rule.effect} {rule.weight:g}" if rule.weight else rule.effect


def _situation(case: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {_value(value)}" for name, value in case.items())


def _value(value: Any) -> str:
    if isinstance(value, list):
        return " + ".join(map(str, value)) or "nothing"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _document(rule: Rule) -> dict[str, Any]:
    conditions = {
        key: [{"fact": item.fact, "operator": item.operator, "value": item.value} for item in getattr(rule, key)]
        for key in ("when", "requires")
    }
    return {
        "name": rule.name,
        "effect": rule.effect,
        "weight": rule.weight,
        "set": dict(rule.values),
        **conditions,
        "reason": rule.reason,
        "source": rule.source,
        "evidence": rule.evidence,
        "fires": list(rule.fires),
        "silent": list(rule.silent),
        "file": rule.file,
    }
