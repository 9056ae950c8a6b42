"""``peftselect rules``: list, show, check."""

from __future__ import annotations

import json
from pathlib import Path

from tests.test_knowledge import PLAIN, RULES


def test_the_list_has_every_rule(peftselect) -> None:
    done = peftselect("rules", "--json")
    assert done.returncode == 0, done.stderr
    assert [item["name"] for item in json.loads(done.stdout)["rules"]] == [item.name for item in RULES]


def test_the_table_names_the_rules(peftselect) -> None:
    done = peftselect("rules", COLUMNS="160")
    assert done.returncode == 0, done.stderr
    assert all(item.name in done.stdout for item in RULES)


def test_one_rule_with_its_cases(peftselect) -> None:
    done = peftselect("rules", "qa-lora")
    assert done.returncode == 0, done.stderr
    lines = [" ".join(line.split()) for line in done.stdout.splitlines()]
    assert lines[:3] == [
        "qa-lora",
        "LoRA changes attention queries and values, which relate words of the question to words of the answer.",
        "",
    ]
    assert "when task is qa; method is one of lora, qlora" in lines
    assert "fires task = qa, method = lora" in lines
    assert "silent task = ner, method = lora" in lines


def test_an_unknown_rule(peftselect) -> None:
    done = peftselect("rules", "qa-lola")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == "error: unknown rule 'qa-lola'"
    assert "qa-lora" in done.stderr.splitlines()[1]


def test_check_of_the_shipped_rules(peftselect) -> None:
    done = peftselect("rules", "check")
    cases = sum(len(item.fires) + len(item.silent) for item in RULES)
    assert (done.returncode, done.stdout) == (0, f"{len(RULES)} rules, {cases} cases: all as written.\n")


def test_check_of_a_file_with_a_wrong_case(peftselect, tmp_path: Path) -> None:
    file = tmp_path / "ours.toml"
    file.write_text(PLAIN.format(when='task = "qa"', fires='task = "ner"', silent='task = "ner"'))
    done = peftselect("rules", "check", str(file))
    assert done.returncode == 2
    assert done.stdout == "ours.toml: rule 'plain': fires case 1 stays silent\n1 rule, 2 cases: 1 go wrong.\n"
    as_json = peftselect("rules", "check", str(file), "--json")
    assert as_json.returncode == 2
    assert json.loads(as_json.stdout)["problems"] == ["ours.toml: rule 'plain': fires case 1 stays silent"]


def test_check_of_a_file_that_is_not_there(peftselect) -> None:
    done = peftselect("rules", "check", "gone.toml")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: gone.toml: No such file or directory")


def test_files_belong_to_check(peftselect) -> None:
    done = peftselect("rules", "qa-lora", "ours.toml")
    assert (done.returncode, done.stderr.splitlines()[0]) == (2, "error: unexpected argument 'ours.toml'")
