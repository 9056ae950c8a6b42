"""``peftselect methods``: the table, the page of one method, and their JSON."""

from __future__ import annotations

import json

import pytest

from peftselect.plugin_manager import host

METHODS = sorted(host().methods())


def test_there_are_methods() -> None:
    assert len(METHODS) >= 10


def test_the_table_has_a_row_for_each_registered_method(peftselect) -> None:
    done = peftselect("methods", COLUMNS="200")
    assert done.returncode == 0
    rows = {line.split()[0]: line for line in done.stdout.splitlines() if line.split()}
    assert set(METHODS) <= set(rows)
    assert "merge, 4-bit, several" in rows["lora"]
    assert "4-bit only" in rows["qlora"]
    assert "Reparameterized" in {line.strip() for line in done.stdout.splitlines()}


def test_json_says_all_about_each(peftselect) -> None:
    document = json.loads(peftselect("methods", "--json").stdout)
    assert [item["name"] for item in document["methods"]] == METHODS
    for item in document["methods"]:
        assert "learning_rate" in {setting["name"] for setting in item["hyperparameters"]}
        assert item["references"], item["name"]
        assert (item["trainable_parameters"] is None) == (item["unsupported"] is not None), item["name"]


@pytest.mark.parametrize("name", METHODS)
def test_each_has_a_page(peftselect, name: str) -> None:
    done = peftselect("methods", name)
    method = host().method(name)
    assert done.returncode == 0
    assert done.stdout.startswith(f"{method.title} ({name})\n")
    assert all(reference.url in done.stdout.replace("\n", "") for reference in method.references)
    assert done.stdout.endswith(f"peftselect run --method {name}\n")


def test_lora_on_the_thesis_model_trains_what_the_thesis_says(peftselect) -> None:
    document = json.loads(peftselect("methods", "lora", "--model", "flan-t5-base", "--json").stdout)
    settings = {item["name"]: item["default"] for item in document["hyperparameters"]}
    if settings["r"] == 16:
        assert document["trainable_parameters"] == 1_769_472
    assert document["trainable_parameters"] == 1_769_472 * settings["r"] // 16


def test_an_unknown_method_is_one_line_and_a_hint(peftselect) -> None:
    done = peftselect("methods", "lorra")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: unknown method 'lorra'"
    assert done.stderr.splitlines()[1].startswith("hint: did you mean ")
    assert "lora" in done.stderr.splitlines()[1]
    assert done.stdout == ""
