"""From a candidate to a model: heads, labels, precision, quantisation, seeds, and checkpoints that do not fit."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from peftselect.errors import InputError, UnsupportedError
from peftselect.method import Candidate, Recipe, resolve_values
from peftselect.modeling import autocast, build, count_parameters, merge
from peftselect.plugin_manager import host
from peftselect.problem import BaseModel, Problem
from peftselect.processors import load_tokenizer
from peftselect.shapes import read_shape

Models = Callable[[str], Path]
LABELS = ("bad", "fair", "good")


def base_model(folder: Path) -> BaseModel:
    config = json.loads((folder / "config.json").read_text())
    return BaseModel(folder.name, str(folder), str(folder), "folder", config, folder)


def made(folder: Path, method: str, head: str, labels: int = 3, seed: int = 0, **recipe: Any) -> tuple[Any, Any, Any]:
    """(model, tokenizer, recipe) of a candidate on a tiny model."""
    base = base_model(folder)
    shape = read_shape(base.config, head, labels)
    plan = Recipe(**{"precision": "fp32", "quantization": None, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
                     "gradient_checkpointing": False, "learning_rate": 1e-3, "num_train_epochs": 1, "max_length": 16,
                     **recipe})  # fmt: skip
    chosen = host().method(method)
    task: Any = SimpleNamespace(name="test", problem_type=None)
    names = LABELS[:labels] if shape.head.num_labels and head != "question_answering" else ()
    candidate = Candidate(chosen, resolve_values(chosen, shape), plan)
    return (*build(Problem(task, base, shape), candidate, names, total_steps=10, seed=seed), plan)


def step(model: Any, inputs: Mapping[str, Any], mixed: str | None) -> torch.Tensor:
    """One forward and backward pass as the Trainer would run it; the largest gradient."""
    with torch.autocast("cpu", torch.bfloat16, enabled=mixed == "bf16"):
        loss = model(**inputs).loss
    assert torch.isfinite(loss)
    loss.backward()
    return max(item.grad.abs().max() for item in model.parameters() if item.grad is not None)


def test_labels_are_written_into_the_configuration(tiny_models: Models) -> None:
    model, _, _ = made(tiny_models("bert"), "lora", "sequence_classification")
    config = model.get_base_model().config
    assert config.id2label == {0: "bad", 1: "fair", 2: "good"}
    assert config.label2id == {"bad": 0, "fair": 1, "good": 2}
    assert config.problem_type == "single_label_classification"


def test_one_label_is_a_number_to_regress(tiny_models: Models) -> None:
    model, _, _ = made(tiny_models("bert"), "lora", "sequence_classification", labels=1)
    assert model.get_base_model().config.problem_type == "regression"
    assert model(input_ids=torch.ones(2, 4, dtype=torch.long), labels=torch.tensor([0.5, 2.0])).loss > 0


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_a_decoder_classifier_knows_its_padding(tiny_models: Models, tmp_path: Path, kind: str) -> None:
    folder = shutil.copytree(tiny_models(kind), tmp_path / kind)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "pad_token_id": None}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**settings, "pad_token": None}))
    model, tokenizer, _ = made(folder, "lora", "sequence_classification")
    assert tokenizer.pad_token == "</s>"
    assert model.get_base_model().config.pad_token_id == tokenizer.pad_token_id == 1
    ids = torch.tensor([[5, 6, 7, 8], [5, 6, 1, 1]])
    assert model(input_ids=ids, attention_mask=(ids != 1).long()).logits.shape == (2, 3)


def test_a_soft_prompt_on_a_decoder_pads_left(tiny_models: Models) -> None:
    assert made(tiny_models("llama"), "prompt_tuning", "sequence_classification")[1].padding_side == "left"
    assert made(tiny_models("llama"), "lora", "sequence_classification")[1].padding_side == "right"


def test_adapters_train_in_float32_over_a_frozen_base_in_16_bits(tiny_models: Models) -> None:
    model, _, plan = made(tiny_models("bert"), "lora", "sequence_classification", precision="bf16")
    kept = {item.dtype for item in model.parameters() if item.requires_grad}
    frozen = {item.dtype for item in model.parameters() if not item.requires_grad}
    assert (kept, frozen) == ({torch.float32}, {torch.bfloat16})
    assert autocast(model, plan) is None


def test_full_finetuning_keeps_float32_master_weights(tiny_models: Models) -> None:
    model, _, plan = made(tiny_models("t5"), "full_finetuning", "seq2seq_lm", precision="bf16")
    assert {item.dtype for item in model.parameters()} == {torch.float32}
    assert autocast(model, plan) == "bf16"
    trainable, total = count_parameters(model)
    assert trainable == total


def test_pure_bfloat16_keeps_no_master_weights(tiny_models: Models) -> None:
    model, _, plan = made(tiny_models("t5"), "full_finetuning", "seq2seq_lm", precision="pure_bf16")
    assert {item.dtype for item in model.parameters()} == {torch.bfloat16}
    assert autocast(model, plan) is None
    model, _, plan = made(tiny_models("bert"), "lora", "sequence_classification", precision="pure_bf16")
    assert {item.dtype for item in model.parameters() if item.requires_grad} == {torch.float32}


def test_float32_needs_no_autocast_and_float16_always(tiny_models: Models) -> None:
    for precision, expected in (("fp32", None), ("fp16", "fp16")):
        model, _, plan = made(tiny_models("t5"), "lora", "seq2seq_lm", precision=precision)
        assert autocast(model, plan) == expected


@pytest.mark.parametrize("name", sorted(host().methods()))
@pytest.mark.parametrize(("kind", "head"), [("bert", "sequence_classification"), ("llama", "causal_lm")])
def test_every_method_takes_a_step_in_bfloat16(tiny_models: Models, name: str, kind: str, head: str) -> None:
    method, base = host().method(name), base_model(tiny_models(kind))
    shape = read_shape(base.config, head, 3)
    serves = head in method.heads and shape.architecture in method.architectures
    if not serves or method.unsupported(shape, resolve_values(method, shape)):
        pytest.skip(f"{name} does not serve {kind} for {head}")
    quantization = "nf4" if method.quantized_base == "required" else None
    model, _, plan = made(tiny_models(kind), name, head, precision="bf16", quantization=quantization)
    ids = torch.arange(5, 21).reshape(2, 8)
    labels = ids if head == "causal_lm" else torch.tensor([0, 2])
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    assert step(model, inputs, autocast(model, plan, forward_only=method.forward_only)) > 0
    masters = method.saves_adapter or not method.forward_only
    width = torch.float32 if masters else torch.bfloat16
    assert {item.dtype for item in model.parameters() if item.requires_grad} == {width}


@pytest.mark.parametrize("kind", ["bert", "t5", "gpt2", "llama"])
@pytest.mark.parametrize("quantization", ["nf4", "int8"])
def test_a_quantised_base_counts_in_full_and_keeps_the_head(tiny_models: Models, kind: str, quantization: str) -> None:
    heads = {"bert": "sequence_classification", "t5": "seq2seq_lm"}
    head = heads.get(kind, "causal_lm")
    model, _, _ = made(tiny_models(kind), "lora", head, quantization=quantization)
    plain, _, _ = made(tiny_models(kind), "lora", head)
    assert count_parameters(model) == count_parameters(plain)
    names = {type(module).__name__ for module in model.modules()}
    assert names & {"Linear4bit", "Linear8bitLt"}
    if kind == "bert":
        assert type(model.get_base_model().classifier.original_module).__name__ == "Linear"


def test_the_same_seed_gives_the_same_head_and_adapter(tiny_models: Models) -> None:
    one, again, other = (
        made(tiny_models("bert"), "lora", "sequence_classification", seed=seed)[0].state_dict() for seed in (1, 1, 2)
    )
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_gradient_checkpointing_is_switched_on_or_refused(tiny_models: Models) -> None:
    model, _, _ = made(tiny_models("llama"), "lora", "causal_lm", gradient_checkpointing=True)
    assert model.get_base_model().is_gradient_checkpointing
    with pytest.raises(UnsupportedError, match=r"Prefix tuning \(peft\) does not work with gradient checkpointing"):
        made(tiny_models("llama"), "prefix_tuning_peft", "causal_lm", gradient_checkpointing=True)


def test_merging_brings_the_trained_head_along(tiny_models: Models) -> None:
    model, _, _ = made(tiny_models("roberta"), "ia3", "sequence_classification")
    head = model.get_base_model().classifier.modules_to_save["default"]
    merged = merge(model)
    assert merged.classifier is head
    assert not any("ia3" in name or "modules_to_save" in name for name in merged.state_dict())


def refused(tmp_path: Path, folder: Path, head: str, spoil: Callable[[Path], None]) -> str:
    """The message that a spoiled copy of a model folder is refused with."""
    copy = shutil.copytree(folder, tmp_path / "copy")
    spoil(copy)
    with pytest.raises(InputError) as caught:
        made(copy, "lora", head)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value.message.replace(str(copy), "FOLDER")


def test_a_folder_without_weights(tmp_path: Path, tiny_models: Models) -> None:
    message = refused(tmp_path, tiny_models("bert"), "sequence_classification",
                      lambda copy: (copy / "model.safetensors").unlink())  # fmt: skip
    assert message.startswith("FOLDER: the model could not be loaded (")


def test_a_truncated_checkpoint(tmp_path: Path, tiny_models: Models) -> None:
    def cut(copy: Path) -> None:
        weights = copy / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:1000])

    message = refused(tmp_path, tiny_models("bert"), "sequence_classification", cut)
    assert message.startswith("FOLDER: the model could not be loaded (")


def test_a_checkpoint_of_another_depth(tmp_path: Path, tiny_models: Models) -> None:
    def deepen(copy: Path) -> None:
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 3}))

    message = refused(tmp_path, tiny_models("bert"), "sequence_classification", deepen)
    assert message == (
        "FOLDER: the checkpoint lacks 16 of the weights that a sequence_classification model needs"
        " (bert.encoder.layer.2.attention.output.LayerNorm.bias first)"
    )


def test_a_checkpoint_of_another_width(tmp_path: Path, tiny_models: Models) -> None:
    def widen(copy: Path) -> None:
        config = json.loads((copy / "config.json").read_text())
        (copy / "config.json").write_text(json.dumps({**config, "intermediate_size": 128}))

    assert "FOLDER: the checkpoint lacks" in refused(tmp_path, tiny_models("bert"), "sequence_classification", widen)


def test_a_folder_without_a_tokenizer(tmp_path: Path, tiny_models: Models) -> None:
    def strip(copy: Path) -> None:
        for file in copy.glob("*token*"):
            file.unlink()

    message = refused(tmp_path, tiny_models("bert"), "sequence_classification", strip)
    assert message == "FOLDER: the tokenizer knows no words, its files are missing"


def test_a_tokenizer_of_a_larger_model(tmp_path: Path, tiny_models: Models) -> None:
    def enlarge(copy: Path) -> None:
        tokenizer = load_tokenizer(base_model(copy))
        tokenizer.add_tokens([f"more{index}" for index in range(200)])
        tokenizer.save_pretrained(copy)

    message = refused(tmp_path, tiny_models("bert"), "sequence_classification", enlarge)
    assert "tokens, the model knows 128" in message
