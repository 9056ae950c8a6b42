"""Packed examples: the same logits and loss as alone, refused where a model cannot, and runs that learn as before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import peftselect
from peftselect import TaskContext
from peftselect.errors import UnsupportedError
from peftselect.plugin_manager import host
from tests.tiny import config, tokenizer

ROWS = [
    {"source": "w1 w2 w3", "target": "w4"},
    {"source": "w1", "target": "w5 w6"},
    {"source": "w9 w8", "target": "w7"},
]


def model_of(kind: str) -> Any:
    import torch
    import transformers

    torch.manual_seed(0)
    return transformers.AutoModelForCausalLM.from_config(config(kind)).eval()


def encoded() -> Any:
    here = TaskContext(tokenizer(), "decoder", "causal_lm", 48, 16)
    return host().task("instruction").encode_train(ROWS, here)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_packed_logits_and_loss_are_those_of_single_examples(kind: str) -> None:
    import torch

    from peftselect.training import packing

    model, single = model_of(kind), encoded()
    packed = packing.pack(single, 10, "causal_lm")
    assert len(packed) == 2
    batch = packing.collator(0)(list(packed))
    with torch.no_grad():
        output = model(**batch)
        rows = [model(**{key: torch.tensor([row[key]]) for key in ("input_ids", "labels")}) for row in single]
    found = iter(rows)
    for logits, positions in zip(output.logits, packed["position_ids"], strict=True):
        starts = [at for at, position in enumerate(positions) if position == 0]
        for begin, end in zip(starts, [*starts[1:], len(positions)], strict=True):
            assert torch.allclose(logits[begin:end], next(found).logits[0], atol=1e-5)
    counted = [sum(label >= 0 for label in row["labels"]) for row in single]
    mean = sum(float(row.loss) * count for row, count in zip(rows, counted, strict=True)) / sum(counted)
    assert float(output.loss) == pytest.approx(mean, abs=1e-5)
    packing.check(model, kind)


def test_rows_are_filled_in_order() -> None:
    from peftselect.training import packing

    lengths = [[len(row["input_ids"]) for row in encoded()]]
    packed = packing.pack(encoded(), 100, "causal_lm")
    assert [len(row) for row in packed["input_ids"]] == [sum(lengths[0])]
    with pytest.raises(UnsupportedError, match="for causal language models"):
        packing.pack(encoded(), 100, "seq2seq_lm")


def test_models_that_cannot_keep_examples_apart_are_refused() -> None:
    import torch
    import transformers

    from peftselect.training import packing

    torch.manual_seed(0)
    bloom = transformers.BloomConfig(vocab_size=128, hidden_size=32, n_layer=2, n_head=4)
    with pytest.raises(UnsupportedError, match="tiny-bloom cannot train on packed examples"):
        packing.check(transformers.BloomForCausalLM(bloom), "tiny-bloom")


def order(folder: Path, model: Path, method: str) -> dict[str, Any]:
    rows = [{"prompt": f"w{n % 50} w{n % 7}" + " w1" * (n % 5), "completion": f"w{n % 3}"} for n in range(60)]
    file = folder / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return {
        "task": "instruction", "model": str(model), "train": file, "method": method, "device": "cpu",
        "output": folder / "out", "max_length": 32, "max_target_length": 4,
        "settings": {"num_train_epochs": 8, "packing": "true", "precision": "fp32"},
    }  # fmt: skip


def test_a_packed_run_learns(tiny_models: Any, tmp_path: Path) -> None:
    result = peftselect.run(**order(tmp_path, tiny_models("llama"), "lora"))
    losses = json.loads((tmp_path / "out" / "metrics.json").read_text())["history"]["training"]
    assert losses[-1]["loss"] < losses[0]["loss"]
    recipe = result.record.candidate["recipe"]
    assert recipe["packing"] is True
    # 40 examples would take five steps an epoch
    assert result.record.measured["steps"] < 8 * 5


def test_a_soft_prompt_and_packing_are_refused_together(tiny_models: Any, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="cannot train on packed examples"):
        peftselect.run(**order(tmp_path, tiny_models("llama"), "prompt_tuning"))
