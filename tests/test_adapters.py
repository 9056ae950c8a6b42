"""What defines each of the methods that add small networks or positions, shown on tiny models."""

from __future__ import annotations

from typing import Any

import pytest

from peftselect.method import ApplyContext, Method, resolve_values
from peftselect.modeling import AUTO_CLASSES
from peftselect.plugin_manager import PluginHost
from peftselect.shape import ModelShape
from peftselect.testing.models import tiny_folder, tiny_shape

METHODS = PluginHost.load(external=False).methods()
LANGUAGE_HEADS = {"t5": "seq2seq_lm", "bart": "seq2seq_lm", "gpt2": "causal_lm", "llama": "causal_lm"}


def base(kind: str, head: str) -> tuple[Any, ModelShape]:
    import transformers

    shape = tiny_shape(kind, head)
    assert shape is not None
    return getattr(transformers, AUTO_CLASSES[head]).from_pretrained(tiny_folder(kind, head)), shape


def applied(name: str, kind: str, head: str, **overrides: Any) -> tuple[Any, ModelShape, Method]:
    """The method on a tiny model, its adapter weights made large so that their effect is seen."""
    import torch

    model, shape = base(kind, head)
    method = METHODS[name]
    wrapped = method.apply(model, resolve_values(method, shape, overrides), ApplyContext(shape, "test", 10))
    torch.manual_seed(5)
    for tensor in wrapped.parameters():
        if tensor.requires_grad:
            torch.nn.init.normal_(tensor, std=0.2)
    return wrapped.eval(), shape, method


def ids(rows: int = 2, length: int = 7) -> Any:
    import torch

    return torch.randint(5, 90, (rows, length), generator=torch.Generator().manual_seed(8))


@pytest.mark.parametrize("kind", list(LANGUAGE_HEADS))
@pytest.mark.parametrize("name", ["prefix_tuning", "mam_adapter", "adapter_houlsby", "parallel_adapter"])
def test_decoding_with_the_cache_gives_what_it_gives_without(name: str, kind: str) -> None:
    import torch
    from transformers import DynamicCache, EncoderDecoderCache

    model, _, method = applied(name, kind, LANGUAGE_HEADS[kind])
    # transformers counts the encoder's layers for the cache of a T5, of which this one has fewer
    own = {"past_key_values": EncoderDecoderCache(DynamicCache(), DynamicCache())} if kind == "t5" else {}
    assert method.decodes_with_cache
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[0, :3] = 0
    answers = [
        model.generate(
            input_ids=ids(), attention_mask=mask, max_new_tokens=6, min_new_tokens=6, do_sample=False, num_beams=2,
            use_cache=cached, output_scores=True, return_dict_in_generate=True, pad_token_id=0,
            **(own if cached else {}),
        )
        for cached in (True, False)
    ]  # fmt: skip
    assert torch.equal(answers[0].sequences, answers[1].sequences)
    assert torch.allclose(torch.stack(answers[0].scores), torch.stack(answers[1].scores), atol=1e-4)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_prefixes_reach_encoder_decoder_and_cross_attention(kind: str) -> None:
    import torch

    model, _, _ = applied("prefix_tuning", kind, "seq2seq_lm")
    keys = [name for name, _ in model.named_parameters() if "psel_prefix_key" in name]
    parts = {"EncDecAttention" in name or "encoder_attn" in name: name for name in keys if ".decoder." in name}
    assert set(parts) == {True, False}
    whole = {"input_ids": ids(), "decoder_input_ids": ids()}
    with torch.no_grad():
        encoded = model.get_encoder()(ids()).last_hidden_state
        before = model(**whole).logits
        with model.disable_adapter():
            assert not torch.allclose(model.get_encoder()(ids()).last_hidden_state, encoded, atol=1e-3)
            assert torch.allclose(model(**whole).logits, base(kind, "seq2seq_lm")[0](**whole).logits, atol=1e-5)
        for name in parts.values():
            value = model.get_parameter(name.replace("_key", "_value"))
            kept = value.clone()
            value.zero_()
            assert not torch.allclose(model(**whole).logits, before, atol=1e-4), name
            value.copy_(kept)


def test_without_its_prefixes_a_model_has_its_own_attention_again() -> None:
    import torch

    model, _, _ = applied("prefix_tuning", "llama", "causal_lm")
    plain = model.unload()
    assert plain.config._attn_implementation == "sdpa"
    with torch.no_grad():
        assert torch.allclose(plain(ids()).logits, base("llama", "causal_lm")[0].eval()(ids()).logits, atol=1e-5)


def test_a_prefix_is_not_offered_where_attention_cannot_be_exchanged() -> None:
    from tests.test_shapes import build

    for kind, reason in (("bloom", "cannot be exchanged"), ("gemma2", "caps its scores")):
        _, shape = build(kind, 0, "causal_lm")
        why = METHODS["prefix_tuning"].unsupported(shape, resolve_values(METHODS["prefix_tuning"], shape))
        assert why is not None and reason in why


def test_a_parallel_adapter_reads_what_the_feed_forward_part_reads() -> None:
    import torch

    model, _, _ = applied("parallel_adapter", "bert", "sequence_classification", bottleneck=3, scale=2.0)
    layer = model.base_model.model.bert.encoder.layer[0]
    seen: dict[str, Any] = {}
    layer.intermediate.register_forward_pre_hook(lambda _, inputs: seen.update(read=inputs[0]))
    layer.output.dense.register_forward_hook(lambda module, _, output: seen.update(output=output))
    layer.output.dense.base_layer.register_forward_hook(lambda _, __, output: seen.update(plain=output))
    with torch.no_grad():
        model(ids())
        down, up = layer.output.dense.psel_bottleneck_down["default"], layer.output.dense.psel_bottleneck_up["default"]
        assert torch.allclose(seen["output"] - seen["plain"], 2.0 * up(torch.relu(down(seen["read"]))), atol=1e-5)
