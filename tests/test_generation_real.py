"""Instructions, mathematics and code summaries on real data, through tiny random models; minutes, so marked slow."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect.data import read_rows
from peftselect.plugin_manager import host
from tests.conftest import data_set

pytestmark = pytest.mark.slow

#: data set -> task, family of model
RUNS = [
    ("gsm8k", "math_reasoning", "llama"),
    ("alpaca", "instruction", "llama"),
    ("alpaca", "instruction", "t5"),
    ("mbpp_summarization", "code_summarization", "llama"),
    ("mbpp_summarization", "code_summarization", "t5"),
]


def reader(texts: list[str]) -> Any:
    """A byte-level tokenizer of a thousand pieces, made from the texts."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE(unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<pad>", "</s>", "<unk>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        special_tokens=special, vocab_size=1000, show_progress=False, initial_alphabet=alphabet
    )
    inner.train_from_iterator(texts, trainer)
    inner.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


def model(kind: str, texts: list[str], folder: Path) -> Path:
    """A random model of 64 dimensions with its tokenizer."""
    import torch
    import transformers

    torch.manual_seed(0)
    common = {"vocab_size": 1000, "pad_token_id": 0, "eos_token_id": 1}
    if kind == "t5":
        config = transformers.T5Config(
            d_model=64, d_kv=16, d_ff=128, num_layers=2, num_heads=4, decoder_start_token_id=0, **common
        )
        made = transformers.T5ForConditionalGeneration(config)
    else:
        config = transformers.LlamaConfig(
            hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128,
            max_position_embeddings=1024, **common,
        )  # fmt: skip
        made = transformers.LlamaForCausalLM(config)
    made.save_pretrained(folder)
    reader(texts).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(("name", "task", "kind"), RUNS, ids=[f"{name}-{kind}" for name, _, kind in RUNS])
def test_the_loss_falls_and_scores_are_those_of_the_predictions(
    name: str, task: str, kind: str, tmp_path: Path
) -> None:
    chosen, folder = host().task(task), data_set(name)
    rows = read_rows(folder / "train.jsonl", chosen, limit=300)
    texts = [text for row in rows for text in (*chosen.input_texts(row), chosen.target_text(row))]
    result = peftselect.run(
        task, str(model(kind, texts, tmp_path / "model")),
        train=folder / "train.jsonl", evaluation=folder / "validation.jsonl", test=folder / "test.jsonl",
        limit=300, test_limit=10, max_length=192, max_target_length=48, method="full_finetuning", device="cpu",
        output=tmp_path / "out", settings={"num_train_epochs": 2, "learning_rate": 2e-3, "precision": "fp32"},
        seed=1,
    )  # fmt: skip
    losses = json.loads((tmp_path / "out" / "metrics.json").read_text())["history"]["training"]
    tenth = max(len(losses) // 10, 1)
    first, last = (sum(entry["loss"] for entry in part) / tenth for part in (losses[:tenth], losses[-tenth:]))
    assert last < 0.9 * first
    lines = [json.loads(line) for line in (tmp_path / "out" / "predictions.jsonl").read_text().splitlines()]
    again = chosen.score(
        [line["prediction"] for line in lines], [{"target": line["target"], "source": ""} for line in lines]
    )
    assert {name: score.value for name, score in result.record.scores.items()} == pytest.approx(again, abs=1e-5)
    # right answers would score one: the targets are read as they are meant
    perfect = chosen.score([line["target"] for line in lines], [{"target": line["target"]} for line in lines])
    assert perfect[chosen.metric] == pytest.approx(1.0)
