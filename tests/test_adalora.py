"""What peft gets wrong with AdaLoRA: equal ranks fail in training; over 16 bits a divisor is trained, not saved."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from peftselect.method import ApplyContext, resolve_values
from peftselect.modeling import count_parameters
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape
from peftselect.testing.models import tiny_folder
from tests.test_shapes import build
from tests.tiny import config


@pytest.mark.parametrize(
    ("init_r", "target_r", "reason"),
    [
        (9, 8, None),
        (8, 8, "target_r=8 equals init_r: there is no rank to take away (LoRA does that)"),
        (4, 8, "target_r=8 is above init_r=4: ranks are only taken away"),
    ],
)
def test_the_target_lies_below_the_start(init_r: int, target_r: int, reason: str | None) -> None:
    method, shape = host().method("adalora"), read_shape(config("llama").to_dict())
    values = resolve_values(method, shape, {"init_r": init_r, "target_r": target_r})
    assert method.unsupported(shape, values) == reason


def test_over_a_base_in_16_bits_what_is_trained_is_saved(tmp_path: Path) -> None:
    from peft import PeftModel

    def base() -> Any:
        torch.manual_seed(0)
        return build("llama", 0, "causal_lm")[0].to(torch.bfloat16)

    method, shape = host().method("adalora"), build("llama", 0, "causal_lm")[1]
    values = resolve_values(method, shape)
    model = method.apply(base(), values, ApplyContext(shape, "test", 100))
    assert count_parameters(model)[0] == method.trainable_parameters(shape, values)
    optimizer = torch.optim.AdamW([item for item in model.parameters() if item.requires_grad], lr=5e-2)
    ids = torch.arange(5, 21).reshape(2, 8)
    for _ in range(10):
        optimizer.zero_grad()
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base(), tmp_path)
    with torch.no_grad():
        assert torch.equal(again.eval()(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_a_loaded_adapter_takes_labels(tmp_path: Path) -> None:
    from peft import AdaLoraConfig, get_peft_model

    import peftselect

    folder = tiny_folder("bert", "sequence_classification")
    base = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    options: dict[str, Any] = {"target_modules": ["query"], "total_step": 10, "task_type": "SEQ_CLS"}
    get_peft_model(base, AdaLoraConfig(**options)).save_pretrained(tmp_path)
    again = peftselect.load(tmp_path, transformers.AutoModelForSequenceClassification.from_pretrained(folder))
    ids = torch.arange(5, 13)[None]
    assert torch.isfinite(again(input_ids=ids, labels=torch.tensor([1])).loss)
