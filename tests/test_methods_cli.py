"""``peftselect methods``: the table, the page of one method, and their JSON."""

from __future__ import annotations

import json
import re

import pytest

from peftselect.base_models import resolve_base_model
from peftselect.cli.methods import _document
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape

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


def test_the_list_as_json_has_the_same_keys_for_every_kind(peftselect) -> None:
    found = json.loads(peftselect("methods", "--json").stdout)
    assert [item["name"] for item in found] == sorted(host().entries())
    wanted = {"name", "title", "aliases", "kind", "because", "family", "thesis", "references", "tasks",
              "architectures", "mergeable", "quantized_base"}  # fmt: skip
    for item in found:
        assert wanted <= set(item), item["name"]
        assert item["kind"] in {"runnable", "stage", "baseline", "reference"}
        assert bool(item["because"]) == (item["kind"] == "reference"), item["name"]
        assert bool(item["tasks"]) == (item["kind"] in {"runnable", "baseline"}), item["name"]
    lora = next(item for item in found if item["name"] == "lora")
    assert {"summarization", "ner"} <= set(lora["tasks"])
    assert lora["mergeable"]
    assert lora["quantized_base"] == "possible"


@pytest.mark.parametrize("name", METHODS)
def test_json_says_all_about_one(name: str) -> None:
    shown = _document(host().method(name), read_shape(resolve_base_model("flan-t5-base").config))
    assert "learning_rate" in {setting["name"] for setting in shown["hyperparameters"]}
    assert shown["references"]
    assert (shown["trainable_parameters"] is None) == (shown["unsupported"] is not None)


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


@pytest.mark.parametrize("name", METHODS)
def test_each_says_where_its_rate_comes_from(name: str) -> None:
    method = host().method(name)
    if method.kind == "baseline":
        assert method.rate_from == "", "nothing is trained"
        return
    text = method.rate_from
    assert text
    assert not text.endswith("."), "a phrase, behind which the card puts a full stop"
    # a paper or script of others, another method whose rate it is, or the admission that it is a choice of ours
    assert re.search(r"\b(19|20)\d\d\b|the authors|PEFT project|LoRA's|full fine-tuning|prompt tuning's|\bours\b", text)


@pytest.mark.parametrize("method", ["upl_dynamic", "upl_fixed", "idpt"])
@pytest.mark.parametrize(("model", "rate"), [("roberta-base", 1e-2), ("roberta-large", 1e-2), ("flan-t5-xl", 1e-3)])
def test_generated_prefixes_take_a_rate_by_width(peftselect, method: str, model: str, rate: float) -> None:
    document = json.loads(peftselect("methods", method, "--model", model, "--json").stdout)
    assert {item["name"]: item["default"] for item in document["hyperparameters"]}["learning_rate"] == rate


def test_the_card_says_it_too(peftselect) -> None:
    card = " ".join(peftselect("methods", "hypertuning").stdout.split())
    assert "learning_rate: ours: the paper trains another network, on many tasks." in card


@pytest.mark.parametrize("width", ["80", "120"])
def test_nothing_is_cut_off_in_a_narrow_terminal(peftselect, width: str) -> None:
    for option in ([], ["--matrix"]):
        lines = peftselect("methods", *option, COLUMNS=width).stdout.splitlines()
        assert max(map(len, lines)) <= int(width)
        assert set(METHODS) <= {line.split()[0] for line in lines if line.split()}
        headers = {word for line in lines if line.startswith(" method") for word in line.split()}
        assert ({"lm", "s2s", "merge", "4-bit", "free"} if option else {"trains", "does"}) <= headers


def test_an_unknown_method_is_one_line_and_a_hint(peftselect) -> None:
    done = peftselect("methods", "lorra")
    assert done.returncode == 2
    assert done.stderr.splitlines()[0] == "error: unknown method 'lorra'"
    assert done.stderr.splitlines()[1].startswith("hint: did you mean ")
    assert "lora" in done.stderr.splitlines()[1]
    assert done.stdout == ""


def test_the_card_has_the_formula_in_numbers_and_what_the_thesis_reports(peftselect) -> None:
    card = " ".join(peftselect("methods", "lora", COLUMNS="200").stdout.split())
    assert "formula Σ r·(in + out) over the target layers" in card
    assert "on flan-t5-base r = 16, 72 layers of 768 to 768" in card
    assert 72 * 16 * (768 + 768) == 1_769_472
    assert "trains 1,769,472 parameters of flan-t5-base, 0.71 %" in card
    assert "tables 2.3, 2.4, 2.5" in card
    assert "cola 0.76436 (1 of 5)" in card
    assert "Structure (PEFT-Ref; thesis table 2.3)" in card


def test_the_card_says_what_limits_and_simplifies(peftselect) -> None:
    card = peftselect("methods", "adapter^S").stdout
    assert card.startswith("Adapter (Houlsby) (adapter_houlsby)\n")
    assert "Limits\n•  Cannot be merged" in card
    assert "Simplified against the paper\n•  Layer normalisations stay frozen" in card


def test_a_technique_is_shown_and_refused_with_its_reason(peftselect) -> None:
    assert "use instead    none, in_context_learning" in peftselect("methods", "chain-of-thought").stdout
    done = peftselect("run", "--method", "CoT")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "error: chain_of_thought cannot be run: it is a way to ask at inference and trains nothing; give the wording"
        " with --template to the baseline `none`",
        "hint: use instead: none, in_context_learning",
    ]


def test_the_matrix_has_a_mark_for_all_that_a_method_can(peftselect) -> None:
    lines = peftselect("methods", "--matrix", COLUMNS="160").stdout.splitlines()
    header = next(line for line in lines if line.startswith(" method"))
    rows = {line.split()[0]: line.split()[1:] for line in lines if line.split() and line.split()[0] in METHODS}
    assert set(rows) == set(METHODS)
    columns = header.split()[1:]
    assert {"lm", "tok", "enc", "e-d", "merge", "4-bit", "many", "free"} <= set(columns)
    lora, qlora = (dict(zip(columns, rows[name], strict=True)) for name in ("lora", "qlora"))
    assert lora["merge"] == lora["free"] == "●"
    assert qlora["4-bit"] == "only"
    assert qlora["merge"] == "·"
