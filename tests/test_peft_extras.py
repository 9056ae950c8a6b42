"""Methods of peft beyond the thesis that act on no linear layer: what defines each, on tiny models."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import peftselect
from peftselect.method import ApplyContext, resolve_values
from peftselect.plugin_manager import host
from peftselect.testing.models import auto_class, tiny_folder, tiny_shape
from tests.test_run import arguments

IDS = torch.tensor([[7, 8, 9, 10], [11, 12, 13, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
LABELS = torch.tensor([[-100, -100, 9, 10], [-100, 12, 13, -100]])
ROWS = {"input_ids": IDS, "attention_mask": MASK, "labels": LABELS}


def applied(name: str, kind: str, head: str, examples: Any = None, **overrides: Any) -> Any:
    method, shape = host().method(name), tiny_shape(kind, head)
    assert shape is not None
    torch.manual_seed(0)
    model = auto_class(shape).from_pretrained(tiny_folder(kind, head))
    values = resolve_values(method, shape, overrides)
    return method.apply(model, values, ApplyContext(shape, "test", 1, examples=examples)).eval()


@pytest.mark.parametrize(
    ("kind", "head"), [("bert", "sequence_classification"), ("t5", "seq2seq_lm"), ("gpt2", "causal_lm")]
)
def test_norms_and_nothing_else_are_trained(kind: str, head: str) -> None:
    model = applied("ln_tuning", kind, head)
    trained = {name for name, item in model.named_parameters() if item.requires_grad and "modules_to_save" not in name}
    assert trained and all("ln_tuning_layers" in name for name in trained)
    held = {name for name, module in model.named_modules() if "Norm" in type(module).__name__ and ".base_layer" in name}
    assert len(held) == len({name.rpartition(".ln_tuning_layers")[0] for name in trained})
    left = [name for name, module in model.named_modules()
            if "Norm" in type(module).__name__ and ".base_layer" not in name and "ln_tuning" not in name]  # fmt: skip
    assert left == [], "norms that are not tuned"


def test_a_prompt_is_read_through_its_gate() -> None:
    """The output moves by the gate times what attention over the prompt's keys and values gives."""
    model = applied("llama_adapter", "llama", "causal_lm", num_virtual_tokens=3, skipped_layers=1)
    layers = [module for module in model.modules() if hasattr(module, "psel_adaption_gate")]
    assert len(layers) == 1, "the lowest of two blocks has none"
    attention, seen = layers[0].base_layer, {}
    attention.o_proj.register_forward_hook(lambda module, inputs, output: seen.update(read=inputs[0]))
    inputs = {"input_ids": IDS[:1]}
    with torch.no_grad():
        model(**inputs)
        before = seen["read"]
        layers[0].psel_adaption_gate["default"].fill_(0.5)
        attention.k_proj.weight.zero_()  # all tokens of the prompt are alike to every query
        model(**inputs)
        closed = seen["read"]
        layers[0].psel_adaption_gate["default"].fill_(0.0)
        model(**inputs)
        values = attention.v_proj(layers[0].psel_adaption_prompt["default"]).mean(0).view(2, 16)
    expected = 0.5 * values.repeat_interleave(2, dim=0).flatten()
    assert torch.allclose(closed - seen["read"], expected.expand_as(closed), atol=1e-5)
    assert not torch.equal(before, closed)


def test_a_cartridge_begins_as_the_cache_of_the_training_rows() -> None:
    model = applied("cartridge", "llama", "causal_lm", ROWS, num_virtual_tokens=7)
    text = IDS[MASK.bool()]
    asked = torch.tensor([[20, 21, 22]])
    with torch.no_grad():
        own = model(input_ids=asked).logits
        base = auto_class(tiny_shape("llama", "causal_lm")).from_pretrained(tiny_folder("llama", "causal_lm"))
        whole = base.eval()(input_ids=torch.cat([text.unsqueeze(0), asked], dim=1)).logits
    assert torch.allclose(own, whole[:, -3:], atol=1e-4)
    frozen = [item for name, item in model.named_parameters() if "frozen_embedding" in name]
    assert len(frozen) == 1 and len(frozen[0]) == 1 and not frozen[0].requires_grad


def test_the_context_is_the_training_rows_and_only_what_is_asked_may_move() -> None:
    model = applied("cpt", "llama", "causal_lm", ROWS, num_virtual_tokens=7)
    config = model.peft_config["default"]
    assert config.cpt_token_ids == [7, 8, 9, 10, 11, 12, 13]
    assert config.cpt_tokens_type_mask == [2, 2, 4, 4, 6, 8, 8]
    with torch.no_grad():
        written = model(input_ids=torch.tensor([[20, 21, 22]])).logits
        base = model.get_base_model()(input_ids=torch.tensor([[*config.cpt_token_ids, 20, 21, 22]])).logits
    assert torch.allclose(written[:, -3:], base[:, -3:], atol=1e-5), "untrained it is in-context learning"
    model.train()(input_ids=IDS, attention_mask=MASK, labels=LABELS).loss.backward()
    moved = model.prompt_encoder["default"].delta_embedding.weight.grad.abs().sum(1) > 0
    assert moved.tolist() == [True, True, False, False, True, False, False]


def test_a_context_ends_with_an_answer_however_it_is_cut() -> None:
    for tokens in range(1, 12):
        config = applied("cpt", "llama", "causal_lm", ROWS, num_virtual_tokens=tokens).peft_config["default"]
        assert len(config.cpt_token_ids) == tokens
        assert max(config.cpt_tokens_type_mask) % 4 == 0


@pytest.mark.parametrize("name", ["ln_tuning", "llama_adapter", "cartridge", "cpt"])
def test_each_runs_and_is_loaded_again(name: str, tiny_models: Callable[[str], Path], tmp_path: Path) -> None:
    from peftselect.serving.loaded import load
    from peftselect.serving.saved import read_saved

    order = arguments(tmp_path, "text_generation", tiny_models("llama"), name, settings={"num_train_epochs": 1})
    result = peftselect.run(**order)
    assert result.record.measured["trainable_parameters"] == result.record.predicted["trainable_parameters"]
    kept = [json.loads(line) for line in (result.output / "predictions.jsonl").read_text().splitlines()]
    loaded = load(read_saved(result.output), device="cpu")
    assert loaded.predict([item["row"] for item in kept]) == [item["prediction"] for item in kept]


def test_what_does_not_train_on_ordinary_rows_says_why() -> None:
    for name in ("X-LoRA", "Arrow", "aLoRA", "trainable tokens", "ShadowPEFT"):
        entry = host().entry(name)
        assert entry.kind == "reference", name
        assert entry.because, name
