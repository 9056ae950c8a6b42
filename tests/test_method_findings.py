"""What single methods get wrong when taken as peft gives them, and how ours do."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from peftselect.base_models import resolve_base_model
from peftselect.errors import InputError
from peftselect.method import ApplyContext, resolve_values
from peftselect.plugin_manager import host
from peftselect.shape import ModelShape
from peftselect.shapes import read_shape
from tests.test_shapes import build
from tests.tiny import config


def applied(method: str, model: Any, shape: ModelShape, steps: int = 10, **overrides: Any) -> Any:
    """``model`` under a method with some settings."""
    made = host().method(method)
    return made.apply(model, resolve_values(made, shape, overrides), ApplyContext(shape, "test", steps))


def count(method: str, shape: ModelShape, **overrides: Any) -> int:
    made = host().method(method)
    return made.trainable_parameters(shape, resolve_values(made, shape, overrides))


@pytest.fixture(scope="module")
def flan_t5_base() -> ModelShape:
    return read_shape(resolve_base_model("flan-t5-base").config)


def test_lora_on_flan_t5_base_has_the_thesis_count(flan_t5_base: ModelShape) -> None:
    assert count("lora", flan_t5_base, r=16) == 1_769_472
    assert count("lora", flan_t5_base, r=16, target_modules="q,v") == 1_769_472
    assert count("lora", flan_t5_base, r=8) == 1_769_472 // 2


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("t5", ["q", "v"]), ("bert", ["query", "value"]), ("gpt2", ["c_attn"]), ("llama", ["q_proj", "v_proj"])],
)
def test_lora_takes_queries_and_values_by_role(kind: str, expected: list[str]) -> None:
    lora, shape = host().method("lora"), read_shape(config(kind).to_dict())
    made = lora.peft_config(shape, resolve_values(lora, shape), ApplyContext(shape, "test", 10))
    assert sorted(made.target_modules) == expected
    assert made.fan_in_fan_out is (kind == "gpt2")


def test_all_linear_leaves_the_pooler_and_the_head_alone() -> None:
    model, shape = build("bert", 0, "sequence_classification")
    wrapped = applied("lora", model, shape, target_modules="all-linear")
    changed = {name.split(".lora_")[0] for name, _ in wrapped.named_parameters() if ".lora_" in name}
    assert len(changed) == 12
    assert all(".encoder.layer." in name for name in changed)


@pytest.mark.parametrize(("word", "linears"), [("attention", 8), ("ffn", 4), ("attention.output.dense", 2)])
def test_targets_by_word_or_path(word: str, linears: int) -> None:
    model, shape = build("bert", 0, "sequence_classification")
    wrapped = applied("lora", model, shape, target_modules=word)
    assert sum(name.endswith("lora_A.default.weight") for name, _ in wrapped.named_parameters()) == linears


def test_a_target_that_is_not_there_is_named(flan_t5_base: ModelShape) -> None:
    lora = host().method("lora")
    values = resolve_values(lora, flan_t5_base, {"target_modules": "q_proj,v"})
    assert lora.unsupported(flan_t5_base, values) == "target_modules: t5 has no linear layer 'q_proj'"
    with pytest.raises(InputError, match="no linear layer 'q_proj'"):
        lora.trainable_parameters(flan_t5_base, values)


def test_the_rate_of_lora_keeps_step_with_rank_and_scale(flan_t5_base: ModelShape) -> None:
    def rate(**overrides: Any) -> float:
        return float(resolve_values(host().method("lora"), flan_t5_base, overrides)["learning_rate"])

    assert rate() == pytest.approx(1.1e-3)
    assert rate(r=64, lora_alpha=64) == pytest.approx(1.1e-3 / 2)
    assert rate(r=4, lora_alpha=4) == pytest.approx(1.1e-3 * 2)
    assert rate(r=64, lora_alpha=4 * 4, use_rslora=True) == rate(r=16, lora_alpha=16, use_rslora=True)
    assert rate(r=64, learning_rate=1e-3) == 1e-3


def test_the_rate_of_lora_falls_with_the_width() -> None:
    lora = host().method("lora")
    shapes = (read_shape(resolve_base_model(name).config) for name in ("flan-t5-small", "flan-t5-base", "llama-2-7b"))
    rates = [resolve_values(lora, shape)["learning_rate"] for shape in shapes]
    assert rates == pytest.approx([1.4e-3, 1.1e-3, 2.9e-4])


def test_ia3_on_bert_leaves_the_attention_output_alone() -> None:
    model, shape = build("bert", 0, "sequence_classification")
    names = {name for name, _ in applied("ia3", model, shape).named_parameters() if "ia3" in name}
    assert len(names) == 2 * 3
    assert not any("attention.output" in name for name in names)


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning"])
def test_soft_prompts_on_an_encoder_decoder_have_no_second_half(method: str) -> None:
    model, shape = build("t5", 0, "seq2seq_lm")
    wrapped = applied(method, model, shape, num_virtual_tokens=5)
    assert wrapped.prompt_encoder["default"].embedding.weight.shape == (5, 32)


def test_soft_prompts_lengthen_token_logits_by_what_they_say() -> None:
    import torch

    model, shape = build("bert", 0, "token_classification")
    method = host().method("prompt_tuning")
    values = resolve_values(method, shape, {"num_virtual_tokens": 5})
    wrapped = method.apply(model, values, ApplyContext(shape, "ner", 10))
    output = wrapped(input_ids=torch.ones(2, 7, dtype=torch.long), attention_mask=torch.ones(2, 7))
    assert output.logits.shape[1] == 7 + method.prepended_positions(values) == 12


def test_p_tuning_saves_the_prompt_and_not_the_network(flan_t5_base: ModelShape) -> None:
    method = host().method("p_tuning")
    values = resolve_values(method, flan_t5_base)
    assert method.saved_parameters(flan_t5_base, values) == 20 * 768
    assert method.trainable_parameters(flan_t5_base, values) > 10 * 20 * 768


@pytest.mark.parametrize("encoder_type", ["MLP", "LSTM"])
def test_p_tuning_counts_either_network(encoder_type: str) -> None:
    from peftselect.modeling import count_parameters

    model, shape = build("llama", 0, "causal_lm")
    settings = {"encoder_type": encoder_type, "encoder_hidden_size": 12, "num_virtual_tokens": 3}
    assert count_parameters(applied("p_tuning", model, shape, **settings))[0] == count("p_tuning", shape, **settings)


def test_prefixes_of_an_even_number_of_decoder_layers_are_all_their_own() -> None:
    """peft deals the rows of two layers to both, and never reads the second half."""
    import torch

    model, shape = build("t5", 0, "seq2seq_lm")
    wrapped = applied("prefix_tuning_peft", model, shape, prefix_projection=False)
    cache = wrapped.get_prompt(batch_size=1).self_attention_cache
    keys = [cache.layers[index].keys for index in range(shape.decoder_layers)]
    assert shape.decoder_layers % 2 == 0
    assert not any(torch.equal(one, other) for i, one in enumerate(keys) for other in keys[i + 1 :])


@pytest.mark.parametrize("kind", ["t5", "llama", "mt5", "gemma"])
def test_bitfit_is_not_offered_where_there_are_no_biases(kind: str) -> None:
    _, shape = build(kind, 0, "seq2seq_lm" if "t5" in kind else "causal_lm")
    bitfit = host().method("bitfit")
    assert bitfit.unsupported(shape, {}) == f"{kind} has no bias parameters to train"


def test_the_encoders_which_take_no_prefix_are_those_of_transformers() -> None:
    import inspect

    import transformers

    prefix, refused = host().method("prefix_tuning_peft"), []
    kinds = ["albert", "bert", "camembert", "distilbert", "electra", "roberta", "xlm-roberta"]
    for kind in kinds:
        model, shape = build(kind, 0, "token_classification")
        takes = "past_key_values" in inspect.signature(model.base_model.forward).parameters
        assert takes is (prefix.unsupported(shape, {}) is None), kind
        refused += [] if takes else [kind]
    assert refused, transformers.__version__


def test_head_only_needs_a_head() -> None:
    head_only = host().method("head_only")
    assert not head_only.heads & {"causal_lm", "seq2seq_lm"}
    _, shape = build("bert", 0, "token_classification")
    assert count("head_only", shape) == shape.head.parameters == 32 * 3 + 3


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 40])
def test_adalora_reaches_its_budget_in_however_few_steps(steps: int) -> None:
    import torch

    model, shape = build("llama", 0, "causal_lm")
    method = host().method("adalora")
    values = resolve_values(method, shape, {"init_r": 6, "target_r": 3})
    context = ApplyContext(shape, "test", steps)
    wrapped = method.apply(model, values, context)
    optimizer = torch.optim.AdamW([item for item in wrapped.parameters() if item.requires_grad], lr=1e-2)
    (callback,) = method.callbacks(values, context)
    ids = torch.arange(5, 21).reshape(2, 8)
    for step in range(steps):
        wrapped(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        callback.on_optimizer_step(None, SimpleNamespace(global_step=step), None, model=wrapped)
        optimizer.zero_grad()
    pattern = wrapped.peft_config["default"].rank_pattern
    if steps > 1:
        kept = [sum(ranks) for ranks in pattern.values()]
        assert sum(kept) == 3 * len(kept)


def test_adalora_cannot_grow(flan_t5_base: ModelShape) -> None:
    method = host().method("adalora")
    values = resolve_values(method, flan_t5_base, {"init_r": 4, "target_r": 8})
    assert "target_r=8 is above init_r=4" in str(method.unsupported(flan_t5_base, values))


@pytest.mark.parametrize("method", ["prompt_tuning", "p_tuning", "prefix_tuning_peft"])
def test_prompt_methods_are_not_offered_for_multiple_choice_or_enc_dec_classifiers(method: str) -> None:
    made = host().method(method)
    assert "multiple_choice" not in made.heads
    _, shape = build("bart", 0, "sequence_classification")
    assert made.unsupported(shape, resolve_values(made, shape))


def test_prefix_rates_go_with_the_way_the_prefix_is_made(flan_t5_base: ModelShape) -> None:
    prefix = host().method("prefix_tuning_peft")
    assert resolve_values(prefix, flan_t5_base)["learning_rate"] == 1e-2
    assert resolve_values(prefix, flan_t5_base, {"prefix_projection": "true"})["learning_rate"] == 5e-5
    assert count("prefix_tuning_peft", flan_t5_base, num_virtual_tokens=10) == 10 * 2 * 13 * 768
