"""Rules: the shipped ones keep the house's promises, the language does what its guide says, errors say where."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from peftselect.errors import InputError
from peftselect.facts import FACTS
from peftselect.knowledge import EVIDENCE, Rule, check, fire, load_rules
from peftselect.method import Recipe
from peftselect.plugin_manager import host
from peftselect.resources import shipped
from peftselect.vocabulary import task_family
from tests.test_facts import SHAPE

RULES = load_rules(host().rule_files())
GUIDE = shipped("rules", "README.md").read_text(encoding="utf-8")
PLAIN = """
[[rule]]
name = "plain"
when = {{ {when} }}
effect = "prefer"
weight = 1
reason = "Because."
source = "a paper"
evidence = "published"
fires = [{{ {fires} }}]
silent = [{{ {silent} }}]
"""


def rule(tmp_path: Path, when: str, fires: str = "", silent: str = "") -> Rule:
    file = tmp_path / "ours.toml"
    file.write_text(PLAIN.format(when=when, fires=fires, silent=silent))
    return load_rules([file])[0]


def test_there_are_rules_in_several_files() -> None:
    assert len(RULES) > 50
    assert len({item.file for item in RULES}) >= 5


@pytest.mark.parametrize("item", RULES, ids=lambda item: item.name)
def test_every_rule_says_why_and_shows_when(item: Rule) -> None:
    assert item.reason.endswith(".") and len(item.reason) > 20
    assert item.source
    assert item.evidence in EVIDENCE
    assert item.fires and item.silent
    assert {condition.fact for condition in (*item.when, *item.requires)} <= set(FACTS)
    assert check([item]) == []


ADAPTER = {"family": "additive", "acts_on": ["ffn", "attention"], "integration_form": "direct addition"}


def test_every_sentence_of_the_selection_guide_has_a_rule() -> None:
    situations = [
        ({"task": "ner"}, {"method": "prompt_tuning"}, 1),
        ({"budget": "very_small"}, {"method": "prompt_tuning"}, 1),
        ({"task": "qa"}, {"method": "lora"}, 1),
        ({"task": "multiple_choice"}, {"method": "lora"}, 1),
        ({"task": "qa"}, {"integration_form": "scaled addition"}, 1),
        ({"task": "qa"}, {"method": "tiny_attention"}, 1),
        ({"task": "data_to_text"}, {"method": "lora"}, 1),
        ({"task": "summarization"}, {"method": "prefix_tuning"}, 1),
        ({"traits": ["faithful"], "generates": True}, ADAPTER, -1),
        ({"traits": ["reasoning"]}, {"acts_on": ["attention"]}, 1),
        ({"traits": ["new-knowledge"]}, {"acts_on": ["ffn"]}, 1),
        ({"traits": ["simple"]}, {"acts_on": ["embedding"]}, 1),
        ({"traits": ["simple"]}, {"trainable_percent": 100.0}, -1),
    ]
    for problem, method, sign in situations:
        moved = [firing for firing in fire(RULES, problem, method) if "5.3" in firing.source and firing.points]
        assert moved, (problem, method)
        assert all(firing.points * sign > 0 for firing in moved), (problem, method)


def test_what_the_tables_contradict_weighs_little() -> None:
    contradicted = [item for item in RULES if "against it" in item.source]
    assert len(contradicted) >= 5
    assert max(item.weight for item in contradicted) <= 1.0


def test_settings_are_ones_that_the_methods_have() -> None:
    methods = host().methods()
    recipe = {item.name for item in fields(Recipe)}
    checked = 0
    for item in (item for item in RULES if item.effect == "set"):
        for method in (methods[name] for name in item.methods & set(methods)):
            settings = {setting.name: setting for setting in method.hyperparameters(SHAPE)}
            for name, value in item.values.items():
                assert name in recipe or settings[name].parse(value) is not None, (item.name, method.name)
                checked += 1
    assert checked > 5


def test_tasks_named_in_rules_are_tasks() -> None:
    named = [item for rule in RULES for item in rule.when if item.fact == "task"]
    words = {word for item in named for word in (item.value if isinstance(item.value, list) else [item.value])}
    assert len(words) > 5
    assert all(task_family(word) for word in words), words


@pytest.mark.parametrize(
    ("when", "facts", "holds"),
    [
        ('task = "qa"', {"task": "qa"}, True),
        ('task = "qa"', {"task": "ner"}, False),
        ('task.not = "qa"', {"task": "ner"}, True),
        ('task.not = "qa"', {}, False),
        ('task.in = ["qa", "ner"]', {"task": "ner"}, True),
        ('task.not_in = ["qa", "ner"]', {"task": "ner"}, False),
        ("vram_gib.at_most = 4", {"vram_gib": 4}, True),
        ("vram_gib.at_most = 4", {"vram_gib": None}, False),
        ("vram_gib.at_least = 4, vram_gib.at_most = 8", {"vram_gib": 9}, False),
        ('traits = "simple"', {"traits": frozenset({"simple", "faithful"})}, True),
        ('traits.lacks = "simple"', {"traits": frozenset()}, True),
        ('workspace.contains = "att"', {"workspace": "attention"}, True),
        ("mergeable = true", {"mergeable": False}, False),
        ("", {}, True),
    ],
)
def test_conditions(tmp_path: Path, when: str, facts: dict[str, object], holds: bool) -> None:
    assert bool(fire([rule(tmp_path, when)], facts, {})) is holds


def test_cases_that_go_wrong_are_told(tmp_path: Path) -> None:
    wrong = rule(tmp_path, 'task = "qa"', fires='task = "ner"', silent='task = "qa"')
    assert check([wrong]) == [
        "ours.toml: rule 'plain': fires case 1 stays silent",
        "ours.toml: rule 'plain': silent case 1 fires",
    ]


def test_a_rule_without_cases_is_told(tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(re.sub(r"(fires|silent) = .*\n", "", PLAIN.format(when="", fires="", silent="")))
    assert check(load_rules([file])) == [
        "ours.toml: rule 'plain': fires has no case",
        "ours.toml: rule 'plain': silent has no case",
    ]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"prefer"', '"like"', "rule 'plain': effect: 'like' is not known"),
        ('"published"', '"sure"', "rule 'plain': evidence: 'sure' is not known"),
        ("weight = 1", "weight = 9", "rule 'plain': weight: a number of points above 0 and up to 5 is needed"),
        ("weight = 1\n", "", "rule 'plain': weight: a number of points above 0 and up to 5 is needed"),
        ('reason = "Because."', 'reason = ""', "rule 'plain': reason: a text is needed"),
        ('source = "a paper"\n', "", "rule 'plain': source: a text is needed"),
        ('name = "plain"\n', "", "rule 1: name: a text is needed"),
        ("weight = 1", "weigth = 1", "rule 'plain': weigth: not a key of a rule"),
        ('task = "qa" }', 'taks = "qa" }', "rule 'plain': when.taks: there is no such fact"),
        ('task = "qa" }', "task = 3 }", "rule 'plain': when.task.equals: 3 is not a text"),
        ('task = "qa" }', 'task.at_most = "qa" }', "rule 'plain': when.task.at_most: 'at_most' cannot test a text"),
        ('task = "qa" }', 'task.in = "qa" }', "rule 'plain': when.task.in: a list is needed"),
        ('task = "qa" }', 'traits = "easy" }', "rule 'plain': when.traits.contains: 'easy' is not a value of traits"),
        ("fires = [{", 'fires = [{ traits = "simple",', "rule 'plain': fires.traits: a list is needed"),
        ("weight = 1", "weight = 1\nset = { r = 4 }", "rule 'plain': set: a table that belongs to effect 'set' alone"),
        ('"prefer"', '"forbid"', "rule 'plain': weight: effect 'forbid' has none"),
        ("[[rule]]", "[rule]", "there is no [[rule]] table"),
    ],
)  # fmt: skip
def test_errors_name_file_rule_and_key(tmp_path: Path, old: str, new: str, message: str) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(PLAIN.format(when='task = "qa"', fires='task = "qa"', silent='task = "ner"').replace(old, new))
    with pytest.raises(InputError) as caught:
        load_rules([file])
    assert caught.value.message == f"ours.toml: {message}"
    assert caught.value.hint


def test_two_rules_of_one_name(tmp_path: Path) -> None:
    files = [tmp_path / "a.toml", tmp_path / "b.toml"]
    for file in files:
        file.write_text(PLAIN.format(when="", fires="", silent=""))
    with pytest.raises(InputError, match=re.escape("b.toml: rule 'plain': the name is taken by a.toml")):
        load_rules(files)


def test_a_file_that_is_missing_or_no_toml(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^gone\.toml: No such file or directory$"):
        load_rules([tmp_path / "gone.toml"])
    (tmp_path / "bad.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"^bad\.toml: not TOML: "):
        load_rules([tmp_path / "bad.toml"])


def test_the_guide_ends_with_rules_that_work(tmp_path: Path) -> None:
    blocks = re.findall(r"```toml\n(.*?)```", GUIDE, re.DOTALL)
    assert len(blocks) == 1
    file = tmp_path / "ours.toml"
    file.write_text(blocks[0])
    found = load_rules([file])
    assert [item.effect for item in found] == ["avoid", "set", "require"]
    assert check(found) == []
    firing = fire(found, {"model_type": "llama"}, {"mergeable": False})
    assert [(item.excludes, item.points) for item in firing] == [(True, 0.0)]
    assert fire(found, {"total_parameters": 1, "data_regime": "high"}, {"method": "lora"})[0].values == {"r": 32}


def test_the_guide_lists_every_operator() -> None:
    from peftselect.knowledge.conditions import OPERATORS

    assert all(f"`{name}`" in GUIDE for name in OPERATORS)
