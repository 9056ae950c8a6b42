"""Shapes against the real models: every architecture and head; parameters, biases and linear layers counted."""

from __future__ import annotations

from typing import Any

import pytest

from peftselect.errors import InputError
from peftselect.modeling import AUTO_CLASSES
from peftselect.shape import ModelShape
from peftselect.shapes import known_model_types, read_shape
from peftselect.shapes.body import FAMILIES

ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
           "max_position_embeddings": 40}  # fmt: skip
LLAMA = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2,
         "intermediate_size": 48, "pad_token_id": 0}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40}
BART = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 64,
        "max_position_embeddings": 40}  # fmt: skip
T5 = {"d_model": 32, "d_kv": 6, "d_ff": 48, "num_layers": 2, "num_heads": 4}
WAVE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48,
        "conv_dim": [8, 16], "conv_kernel": [10, 3], "conv_stride": [5, 2], "num_conv_pos_embeddings": 16,
        "num_conv_pos_embedding_groups": 4, "classifier_proj_size": 12, "layerdrop": 0.0}  # fmt: skip
WHISPER = {"d_model": 32, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
           "decoder_attention_heads": 4, "encoder_ffn_dim": 48, "decoder_ffn_dim": 64, "num_mel_bins": 20,
           "max_source_positions": 50, "max_target_positions": 40, "classifier_proj_size": 12,
           "pad_token_id": 0}  # fmt: skip
#: model_type -> variants of its configuration
CASES: dict[str, list[dict[str, Any]]] = {
    "bert": [ENCODER],
    "roberta": [ENCODER],
    "xlm-roberta": [ENCODER],
    "camembert": [ENCODER],
    "electra": [{**ENCODER, "embedding_size": 16}, {**ENCODER, "embedding_size": 32}],
    "distilbert": [{"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 48, "max_position_embeddings": 40}],
    "albert": [{**ENCODER, "embedding_size": 16}, {**ENCODER, "embedding_size": 16, "num_hidden_groups": 2}],
    "t5": [T5, {**T5, "num_decoder_layers": 4, "feed_forward_proj": "gated-gelu"}],
    "mt5": [{**T5, "feed_forward_proj": "gated-gelu"}],
    "bart": [BART],
    "mbart": [BART],
    "gpt2": [GPT, {**GPT, "n_inner": 48}],
    "gpt_bigcode": [GPT, {**GPT, "multi_query": False}],
    "gpt_neo": [{"hidden_size": 32, "num_layers": 2, "num_heads": 4, "attention_types": [[["global", "local"], 1]],
                 "max_position_embeddings": 40}],
    "gptj": [{**GPT, "rotary_dim": 4}],
    "gpt_neox": [{**ENCODER}],
    "opt": [{"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48,
             "max_position_embeddings": 40, "word_embed_proj_dim": wide, "do_layer_norm_before": wide == 32}
            for wide in (32, 16)],
    "bloom": [{"hidden_size": 32, "n_layer": 2, "n_head": 4}],
    "llama": [LLAMA, {**LLAMA, "tie_word_embeddings": True, "head_dim": 16, "attention_bias": True, "mlp_bias": True}],
    "mistral": [{**LLAMA, "head_dim": 8}],
    "qwen2": [LLAMA, {**LLAMA, "tie_word_embeddings": True}],
    "qwen3": [{**LLAMA, "head_dim": 16}],
    "gemma": [{**LLAMA, "head_dim": 16}],
    "gemma2": [{**LLAMA, "head_dim": 16}],
    "gemma3_text": [{**LLAMA, "head_dim": 16}],
    "phi": [LLAMA],
    "phi3": [LLAMA],
    "starcoder2": [LLAMA, {**LLAMA, "use_bias": False}],
    "wav2vec2": [WAVE, {**WAVE, "conv_bias": True, "feat_extract_norm": "layer", "do_stable_layer_norm": True,
                        "mask_time_prob": 0.0, "use_weighted_layer_sum": True}],
    "hubert": [WAVE, {**WAVE, "feat_proj_layer_norm": False}],
    "wavlm": [WAVE],
    "whisper": [WHISPER],
}  # fmt: skip
QUESTIONS = [(kind, index) for kind, variants in CASES.items() for index in range(len(variants))]


def build(kind: str, index: int, head: str, labels: int = 3) -> tuple[Any, ModelShape]:
    """A tiny real model and the shape read from its configuration."""
    import transformers

    labels = 2 if head == "question_answering" else labels  # the span head is two wide, whatever the labels
    words = labels if head == "ctc" else 96  # a CTC head is as wide as its vocabulary
    config = transformers.AutoConfig.for_model(kind, vocab_size=words, num_labels=labels, **CASES[kind][index])
    return getattr(transformers, AUTO_CLASSES[head]).from_config(config), read_shape(config.to_dict(), head, labels)


def test_every_known_architecture_has_a_case() -> None:
    assert len(known_model_types()) > 20
    assert set(CASES) == set(known_model_types())


@pytest.mark.parametrize(("kind", "index"), QUESTIONS)
def test_counts_equal_the_real_model(kind: str, index: int) -> None:
    body = FAMILIES[kind]({**read_config(kind, index)})
    assert body.heads
    for head in (*body.heads, *body.under):
        model, shape = build(kind, index, head)
        parameters = dict(model.named_parameters())
        own = [name for name in parameters if any(f"{module}." in name for module in shape.head.modules)]
        assert shape.total_parameters == sum(p.numel() for p in parameters.values()), head
        assert shape.head.parameters == sum(parameters[name].numel() for name in own), head
        biases = sum(p.numel() for name, p in parameters.items() if name.endswith("bias") and name not in own)
        assert shape.bias_parameters == biases, head


@pytest.mark.parametrize(("kind", "index"), QUESTIONS)
def test_linear_paths_select_what_peft_would_select(kind: str, index: int) -> None:
    from torch import nn
    from transformers.pytorch_utils import Conv1D

    model, shape = build(kind, index, next(iter(FAMILIES[kind](read_config(kind, index)).heads)))
    assert shape.linears
    modules = {name: module for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)}
    for path in {linear.path for linear in shape.linears}:
        groups = [linear for linear in shape.linears if linear.path == path]
        # BERT's "output.dense" also ends "attention.output.dense": what a longer path claims is not counted here
        longer = {linear.path for linear in shape.linears if linear.path.endswith("." + path)}
        found = [m for n, m in modules.items() if n.endswith("." + path) and not any(n.endswith(x) for x in longer)]
        sizes = [tuple(m.weight.shape if isinstance(m, Conv1D) else reversed(m.weight.shape)) for m in found]
        expected = [(linear.in_features, linear.out_features) for linear in groups for _ in range(linear.count)]
        assert sorted(sizes) == sorted(expected), path
        assert all(linear.conv1d == isinstance(found[0], Conv1D) for linear in groups)
    assert shape.max_positions is None or shape.max_positions > 0


def read_config(kind: str, index: int) -> dict[str, Any]:
    """A case's configuration as ``config.json`` holds it."""
    from transformers import AutoConfig

    document: dict[str, Any] = AutoConfig.for_model(kind, vocab_size=96, **CASES[kind][index]).to_dict()
    return document


def test_the_thesis_count_of_lora_targets_on_flan_t5_base() -> None:
    config = {"model_type": "t5", "d_model": 768, "d_kv": 64, "d_ff": 2048, "num_layers": 12, "num_heads": 12,
              "vocab_size": 32128, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}  # fmt: skip
    shape = read_shape(config)
    assert shape.total_parameters == 247_577_856
    assert sum(16 * (x.in_features + x.out_features) * x.count for x in shape.select(("q", "v"))) == 1_769_472


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        ({}, "config.json has no model_type", "is this a transformers model folder?"),
        ({"model_type": "bertt"}, "unknown architecture 'bertt'", "did you mean bert"),
        ({"model_type": "bert"}, "config.json of a bert model lacks 'hidden_size'", "take the file that came"),
        ({"model_type": "bert", "hidden_size": "x"}, "config.json: hidden_size is 'x', not a positive", "check"),
    ],
)
def test_bad_configurations_say_what_is_wrong(config: dict[str, Any], message: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        read_shape(config)
    assert caught.value.message.startswith(message)
    assert caught.value.hint.startswith(hint)


def test_a_head_that_the_architecture_lacks_is_refused() -> None:
    with pytest.raises(InputError, match="a gpt2 model cannot carry a token_classification head"):
        read_shape(read_config("gpt2", 0), "token_classification")
