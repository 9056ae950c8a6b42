"""Semantic search: loss and ranking as sentence-transformers has them, and a run that learns to find."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect import TaskContext
from peftselect.metrics import compute
from peftselect.plugin_manager import host
from tests.tiny import config, tokenizer

TASK = host().task("semantic_search")
NAMES = ("ndcg_at_10", "mrr_at_10", "recall_at_1", "recall_at_10")
ROWS = [
    {"query": "who runs ?", "passage": "the dog runs"},
    {"query": "where ?", "passage": "paris is great"},
    {"query": "w1 w2", "passage": "a cat sleeps w1"},
]


def test_ranking_metrics_by_hand() -> None:
    # first query: found at 2 of 2 relevant; second: at 1 and 3, both
    scores = compute(NAMES, [["x", "a", "y"], ["b", "x", "c"]], [["a", "z"], ["b", "c"]])
    ideal = 1 + 1 / math.log2(3)
    assert scores["recall_at_1"] == pytest.approx((0 + 1 / 2) / 2)
    assert scores["recall_at_10"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["mrr_at_10"] == pytest.approx((1 / 2 + 1) / 2)
    assert scores["ndcg_at_10"] == pytest.approx(((1 / math.log2(3)) / ideal + (1 + 1 / 2) / ideal) / 2)


def vectors(rows: list[dict[str, str]]) -> tuple[Any, Any, Any]:
    """(model, objective, batch) of the rows."""
    import torch
    import transformers

    torch.manual_seed(0)
    model = transformers.BertModel(config("bert")).eval()
    here = TaskContext(tokenizer(), "encoder", "feature_extraction", 32)
    batch = TASK.collator(here)(list(TASK.encode_train(rows, here)))
    return model, TASK.objective(here), batch


def test_the_loss_is_that_of_sentence_transformers() -> None:
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers import util

    model, objective, batch = vectors(ROWS)
    with torch.no_grad():
        ours = objective.loss(model, batch)
        embedded = []
        for row in [*(row["query"] for row in ROWS), *(row["passage"] for row in ROWS)]:
            embedded.append(model(**tokenizer()(row, return_tensors="pt")).last_hidden_state[0].mean(0))
    scores = util.cos_sim(torch.stack(embedded[:3]), torch.stack(embedded[3:])) * 20.0
    assert float(ours) == pytest.approx(float(torch.nn.functional.cross_entropy(scores, torch.arange(3))), abs=1e-5)


def test_the_loss_equals_the_library_s_own_module() -> None:
    pytest.importorskip("sentence_transformers")
    import torch
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    model, objective, batch = vectors(ROWS)
    with torch.no_grad():
        found = objective.predict(model, batch)
        theirs = MultipleNegativesRankingLoss(None).compute_loss_from_embeddings([found[:3], found[3:]], None)
        assert float(objective.loss(model, batch)) == pytest.approx(float(theirs), abs=1e-5)


def test_a_repeated_passage_is_no_wrong_answer() -> None:
    import torch

    model, objective, batch = vectors([ROWS[0], {**ROWS[1], "passage": ROWS[0]["passage"]}])
    with torch.no_grad():
        assert float(objective.loss(model, batch)) == pytest.approx(0.0, abs=1e-6)


def test_a_query_with_two_passages_counts_once() -> None:
    rows = [{"query": "q", "passage": "a"}, {"query": "q", "passage": "b"}, {"query": "r", "passage": "c"}]
    scores = TASK.score([["a", "c"], ["a", "c"], ["c"]], rows)
    assert scores["recall_at_10"] == pytest.approx((1 / 2 + 1) / 2)


def test_a_run_learns_to_find(tiny_models: Any, tmp_path: Path) -> None:
    """Queries and passages share no word: which belongs to which has to be learned."""
    pairs = [(f"w{at}", f"w{at + 30}") for at in range(12)]
    lines = [json.dumps({"question": query, "document": passage}) + "\n" for query, passage in pairs]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(lines * 4))
    (tmp_path / "eval.jsonl").write_text("".join(lines))
    result = peftselect.run(
        "semantic_search", str(tiny_models("bert")), train=file, evaluation=tmp_path / "eval.jsonl", method="lora",
        device="cpu", output=tmp_path / "out", allow_overlap=True, batch_size=16, max_length=8,
        settings={"num_train_epochs": 20, "learning_rate": 1e-2, "r": 16, "precision": "fp32"},
    )  # fmt: skip
    before, after = result.record.baseline["mrr_at_10"].value, result.record.scores["mrr_at_10"].value
    assert before < 0.5
    assert after > before + 0.25


def test_code_search_is_asked_as_search_and_says_what_it_rests_on() -> None:
    answer = peftselect.recommend("code_search", "roberta-base", vram_gib=8, num_examples=5000)
    assert answer.recommended is not None
    assert any("of text or of code" in note for note in answer.notes)
