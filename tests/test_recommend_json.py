"""The published JSON of ``recommend --json``: every key, of the right type, over questions of many kinds."""

from __future__ import annotations

import json
from typing import Any

import pytest

NUMBER = (int, float)
MAYBE = type(None)
PROBLEM = {
    "task": str,
    "metric": str,
    "model": dict,
    "data": dict,
    "hardware": dict,
    "priorities": dict,
    "batch_size": int,
    "max_length": int,
    "max_target_length": int,
    "precision": (str, MAYBE),
    "quantization": (str, MAYBE),
}
RECIPE = {
    "precision": str,
    "quantization": (str, MAYBE),
    "micro_batch_size": int,
    "gradient_accumulation_steps": int,
    "gradient_checkpointing": bool,
    "learning_rate": float,
    "num_train_epochs": NUMBER,
    "max_length": int,
    "max_target_length": int,
}
MEMORY = {
    "peak_bytes": int,
    "breakdown": dict,
    "fits": bool,
    "verdict": str,
    "margin_bytes": (int, MAYBE),
    "error_band_percent": NUMBER,
    "source": str,
}
CANDIDATE = {
    "rank": int,
    "tie_group": int,
    "method": str,
    "hyperparameters": dict,
    "recipe": dict,
    "memory": dict,
    "trainable_parameters": int,
    "changed_parameters": int,
    "total_parameters": int,
    "adapter_bytes": int,
    "train_seconds": (dict, MAYBE),
    "score": float,
    "predicted": (dict, MAYBE),
    "confidence": dict,
    "reasons": list,
    "command": str,
}
EXCLUDED = {"method": str, "constraint": str, "because": str, "cheapest_change": (str, MAYBE), "also": list}
QUESTIONS = [
    "--task summarization --vram 4",
    "--task summarization --model flan-t5-base --vram 0.3",
    "--task classification --model roberta-base --vram 8 --num-examples 2000",
    "--task ner --model bert-base-uncased --vram 2 --prefer size",
    "--task text_generation --model llama-2-7b --vram 24 --must merge --devices 2 --sharding zero3",
    "--task text_generation --model gpt2 --vram 6 --max-time 1m --num-examples 100000 --top 3",
    "--task multiple_choice --device cpu --must multi-adapter,quantized-base",
]


def check(document: Any, shape: dict[str, Any], where: str) -> None:
    """Exactly the keys of ``shape``, each of its type (a bool is not a number)."""
    assert isinstance(document, dict), where
    assert set(document) == set(shape), where
    for key, kinds in shape.items():
        value = document[key]
        assert isinstance(value, kinds), f"{where}.{key} is {value!r}"
        assert not (isinstance(value, bool) and kinds is not bool), f"{where}.{key} is {value!r}"


def check_candidate(item: Any, where: str) -> None:
    check(item, CANDIDATE, where)
    check(item["recipe"], RECIPE, f"{where}.recipe")
    check(item["memory"], MEMORY, f"{where}.memory")
    assert item["memory"]["verdict"] in ("fits", "borderline", "does_not_fit")
    assert item["memory"]["source"] in ("closed_form", "fast_trace", "exact_trace")
    assert item["memory"]["breakdown"]
    for part, amount in item["memory"]["breakdown"].items():
        assert isinstance(part, str), where
        assert isinstance(amount, int), f"{where}.{part}"
        assert amount >= 0, f"{where}.{part}"
    if item["train_seconds"] is not None:
        check(item["train_seconds"], dict.fromkeys(("value", "low", "high"), NUMBER), f"{where}.train_seconds")
        assert item["train_seconds"]["low"] <= item["train_seconds"]["value"] <= item["train_seconds"]["high"]
    if item["predicted"] is not None:
        check(item["predicted"], {"metric": str, "value": NUMBER, "low": NUMBER, "high": NUMBER}, f"{where}.predicted")
        assert item["predicted"]["low"] <= item["predicted"]["value"] <= item["predicted"]["high"]
    check(item["confidence"], {"source": str, "because": str}, f"{where}.confidence")
    assert item["confidence"]["source"] in ("rules", "records", "both", "abstained")
    for number, reason in enumerate(item["reasons"]):
        check(reason, {"text": str, "source": str, "kind": str}, f"{where}.reasons[{number}]")
        assert reason["text"], where
        assert reason["source"], where
    assert item["command"].startswith("peftselect run --task ")


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_whole_document_has_the_published_structure(peftselect, question: str) -> None:
    done = peftselect("recommend", *question.split(), "--json")
    document = json.loads(done.stdout)
    assert done.returncode == (0 if document["recommended"] else 3), done.stderr
    assert set(document) == {"schema", "problem", "recommended", "candidates", "excluded", "notes"}
    assert document["schema"] == 1
    check(document["problem"], PROBLEM, "problem")
    for number, item in enumerate(document["candidates"]):
        check_candidate(item, f"candidates[{number}]")
    for number, item in enumerate(document["excluded"]):
        check(item, EXCLUDED, f"excluded[{number}]")
        for other in item["also"]:
            check(other, {"constraint": str, "because": str}, f"excluded[{number}].also")
    candidates = document["candidates"]
    assert document["recommended"] == (candidates[0] if candidates else None)
    assert [item["rank"] for item in candidates] == list(range(1, len(candidates) + 1))
    assert [item["tie_group"] for item in candidates] == sorted(item["tie_group"] for item in candidates)
    assert candidates or document["excluded"]


def test_top_cuts_the_candidates_and_nothing_else(peftselect) -> None:
    question = ("recommend", "--task", "summarization", "--model", "flan-t5-base", "--vram", "8", "--json")
    whole, two = (json.loads(peftselect(*question, *more).stdout) for more in ((), ("--top", "2")))
    assert len(whole["candidates"]) > 2
    assert two == {**whole, "candidates": whole["candidates"][:2]}


def test_errors_are_json_too(peftselect) -> None:
    done = peftselect("recommend", "--task", "sumarisation", "--json")
    assert done.returncode == 2
    document = json.loads(done.stdout)
    assert document == {
        "schema": 1,
        "error": {"message": "unknown task 'sumarisation'", "hint": document["error"]["hint"]},
    }
    assert document["error"]["hint"].startswith("did you mean summarization")


def test_nothing_fits_is_an_answer_with_its_reasons(peftselect) -> None:
    done = peftselect("recommend", "--task", "summarization", "--model", "flan-t5-base", "--vram", "0.3", "--json")
    document = json.loads(done.stdout)
    assert done.returncode == 3
    assert document["recommended"] is None
    assert document["candidates"] == []
    memory = {item["method"]: item for item in document["excluded"]}["full_finetuning"]
    assert memory["constraint"] == "memory"
    assert "0.3 GiB" in memory["because"] or "307 MiB" in memory["because"]
