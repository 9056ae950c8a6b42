"""`estimate --exact`: the real step traced in a process of its own, and honest answers where it cannot be."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from peftselect.base_models import resolve_base_model
from peftselect.errors import InputError
from peftselect.memory.trace import TraceRequest
from peftselect.memory.worker import trace_memory
from peftselect.method import Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape

MIB = 2**20


def request(folder: Path, head: str = "causal_lm", method: str = "lora", **recipe: object) -> TraceRequest:
    base = resolve_base_model(str(folder))
    shape = read_shape(base.config, head)
    values = resolve_values(host().method(method), shape)
    settings = {"precision": "bf16", "quantization": None, "micro_batch_size": 2, "gradient_accumulation_steps": 1,
                "gradient_checkpointing": False, "learning_rate": 1e-3, "num_train_epochs": 1.0, "max_length": 64,
                **recipe}  # fmt: skip
    return TraceRequest(base.config, head, 2, base.lacks_pooler, method, values, Recipe(**settings))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "head", "method", "recipe"),
    [
        ("llama", "causal_lm", "adalora", {}),
        ("t5", "seq2seq_lm", "prompt_tuning", {"max_target_length": 16}),
        ("bert", "multiple_choice", "ia3", {}),
        ("bert", "token_classification", "p_tuning", {}),
        ("roberta", "sequence_classification", "full_finetuning", {"precision": "pure_bf16"}),
        ("roberta", "sequence_classification", "full_finetuning", {"optimizer": "adafactor"}),
        ("llama", "causal_lm", "lora", {"gradient_checkpointing": True, "optimizer": "paged_adamw_8bit"}),
        ("llama", "causal_lm", "lora", {"precision": "fp16", "optimizer": "sgd"}),
        ("llama", "causal_lm", "qlora", {"quantization": "nf4", "gradient_checkpointing": True}),
        ("bert", "sequence_classification", "lora", {"quantization": "int8", "precision": "fp16"}),
    ],
)
def test_a_trace_counts_exactly_and_fits_its_own_capacity(
    tiny_models, kind: str, head: str, method: str, recipe: dict[str, object]
) -> None:
    asked = request(tiny_models(kind), head, method, **recipe)
    found = trace_memory(asked)
    shape = read_shape(asked.config, head, new_pooler=asked.new_pooler)
    assert found.trainable_parameters == host().method(method).trainable_parameters(shape, asked.values)
    assert sum(found.breakdown.values()) <= found.peak_allocated_bytes
    assert found.peak_allocated_bytes <= found.smallest_capacity_bytes <= found.peak_reserved_bytes


def test_autocast_copies_what_it_multiplies_and_checkpointing_keeps_little(tiny_models) -> None:
    asked = request(tiny_models("llama"), method="full_finetuning")
    single = replace(asked, recipe=replace(asked.recipe, precision="fp32"))
    saving = replace(asked, recipe=replace(asked.recipe, gradient_checkpointing=True))
    mixed, plain, little = (trace_memory(one).breakdown for one in (asked, single, saving))
    assert mixed["adapter"] == plain["adapter"]  # float32 master weights in both
    assert mixed["optimizer"] == plain["optimizer"]
    assert mixed["activations"] < plain["activations"]
    assert little["activations"] < mixed["activations"]


def test_a_packed_base_is_smaller_and_eight_bits_keep_their_inputs(tiny_models) -> None:
    asked = request(tiny_models("llama"), precision="fp16")
    four, eight = (
        trace_memory(replace(asked, recipe=replace(asked.recipe, quantization=kind))).breakdown
        for kind in ("nf4", "int8")
    )
    shape = read_shape(asked.config, "causal_lm")
    packed = sum(linear.count * linear.in_features * linear.out_features for linear in shape.linears)
    scales = eight["weights"] - four["weights"] - packed / 2  # half a byte a weight apart, and what scales take
    assert abs(scales) < 1024 * sum(linear.count for linear in shape.linears) + packed / 32
    assert eight["activations"] > four["activations"]


def test_estimate_exact_says_that_it_was_traced(peftselect, tiny_models) -> None:
    options = ("--model", str(tiny_models("llama")), "--method", "lora", "--batch-size", "2", "--max-length", "64")
    done = peftselect("estimate", *options, "--exact", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["source"], document["note"]) == (0, "exact_trace", "")
    on_the_card = dict(document["breakdown"])
    on_the_card.pop("cuda_context")
    assert sum(on_the_card.values()) == document["smallest_capacity_bytes"]
    plain = json.loads(peftselect("estimate", *options, "--no-trace", "--json").stdout)
    assert (plain["source"], plain["smallest_capacity_bytes"]) == ("closed_form", None)
    assert plain["trainable_parameters"] == document["trainable_parameters"]


@pytest.mark.parametrize(
    ("options", "because"),
    [
        (("--method", "lora", "--devices", "2"), "several devices are not traced"),
    ],
)
def test_what_cannot_be_traced_falls_back_to_the_closed_form(
    peftselect, tiny_models, options: tuple[str, ...], because: str
) -> None:
    done = peftselect("estimate", "--model", str(tiny_models("llama")), *options, "--exact", "--json")
    document = json.loads(done.stdout)
    assert document["source"] == "closed_form"
    assert document["note"] == f"no trace ({because}): this is the closed form"


def test_a_raw_configuration_is_traced_with_few_layers_and_sized_to_the_byte(tiny_models, tmp_path: Path) -> None:
    import peft
    import transformers

    folder = tiny_models("t5")
    settings = {"peft_type": "LORA", "task_type": "SEQ_2_SEQ_LM", "r": 4, "target_modules": ["q", "v"]}
    asked = replace(request(folder, "seq2seq_lm", max_target_length=16), method="", peft_config=settings)
    whole, cut = trace_memory(asked), trace_memory(replace(asked, layers=(1, 1)))
    model = transformers.AutoModelForSeq2SeqLM.from_pretrained(folder)
    model = peft.get_peft_model(model, peft.PeftConfig.from_peft_type(**settings))
    model.save_pretrained(tmp_path / "adapter")
    assert whole.adapter_bytes == (tmp_path / "adapter" / "adapter_model.safetensors").stat().st_size
    assert (whole.trainable_parameters, whole.total_parameters) == (
        model.get_nb_trainable_parameters()[0],
        sum(p.numel() for p in model.parameters()),
    )
    # one encoder and one decoder layer of two each: half of the adapters
    assert cut.trainable_parameters * 2 == whole.trainable_parameters
    assert cut.peak_allocated_bytes < whole.peak_allocated_bytes


def test_a_configuration_that_does_not_suit_the_model_is_refused_in_one_line(tiny_models) -> None:
    asked = request(tiny_models("llama"))
    with pytest.raises(InputError, match=r"does not suit the model: .*Target modules"):
        trace_memory(replace(asked, peft_config={"peft_type": "LORA", "target_modules": ["nowhere"]}))


def test_what_the_installed_peft_does_not_know_is_refused(tiny_models) -> None:
    asked = request(tiny_models("llama"))
    with pytest.raises(InputError, match="knows no type NEWEST"):
        trace_memory(replace(asked, peft_config={"peft_type": "NEWEST"}))
    misspelt = {"peft_type": "LORA", "target_modules": ["q_proj"], "lora_aplha": 4}
    with pytest.raises(InputError, match="has no setting lora_aplha"):
        trace_memory(replace(asked, peft_config=misspelt))
