"""What defines each of the methods that add small networks or positions, shown on tiny models."""

from __future__ import annotations

from pathlib import Path
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


DECODED = ("prefix_tuning", "mam_adapter", "adapter_houlsby", "parallel_adapter")


@pytest.mark.parametrize(
    ("name", "kind"),
    [(name, kind) for name in DECODED for kind in LANGUAGE_HEADS] + [("upl_dynamic", "t5"), ("upl_dynamic", "bart")],
)
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


def test_compacter_shares_its_rules_among_all_layers_and_keeps_them_with_the_adapter() -> None:
    model, shape, method = applied("compacter", "t5", "seq2seq_lm")
    rules = [name for name, _ in model.named_parameters() if "rules" in name]
    assert rules == ["base_model.psel_compacter_rules.default"]
    model.add_adapter("second", model.peft_config["default"])
    assert [name for name, item in model.named_parameters() if "rules" in name and item.requires_grad] == rules
    model.set_adapter("second")
    trained = sum(item.numel() for item in model.parameters() if item.requires_grad)
    assert trained == method.trainable_parameters(shape, resolve_values(method, shape))
    model.delete_adapter("default")
    assert [name for name, _ in model.named_parameters() if "rules" in name] == [rules[0].replace("default", "second")]


def test_compacter_is_not_offered_where_the_widths_cannot_be_divided() -> None:
    _, shape = base("bert", "sequence_classification")
    method = METHODS["compacter"]
    values = resolve_values(method, shape, {"division": 3})
    assert method.unsupported(shape, values) == "the width 32 is no multiple of division=3"


@pytest.mark.parametrize("kind", ["t5", "bart", "bert", "llama"])
def test_adapterdrop_leaves_the_lower_blocks_without_adapters_and_without_gradients(kind: str) -> None:
    import torch

    head = LANGUAGE_HEADS.get(kind, "sequence_classification")
    model, shape, method = applied("adapterdrop", kind, head)
    adapters = [name.split(".") for name, _ in model.named_parameters() if "psel_" in name]
    assert min(int(next(part for part in name if part.isdigit())) for name in adapters) == 1
    quiet = method.memory(shape, resolve_values(method, shape), 4).quiet_blocks
    assert sum(quiet) == 1
    lowest = next(module for name, module in model.named_modules() if name.endswith((".layer.0", ".layers.0", "k.0")))
    seen: list[Any] = []
    lowest.register_forward_hook(lambda _, __, out: seen.append(out if torch.is_tensor(out) else out[0]))
    more = {"decoder_input_ids": ids()} if head == "seq2seq_lm" else {}
    assert model(input_ids=ids(), **more).logits.requires_grad
    assert not seen[0].requires_grad


@pytest.mark.parametrize("kind", ["gpt2", "bart", "bert"])
def test_tiny_attention_looks_neither_ahead_nor_at_padding(kind: str) -> None:
    import torch

    head = LANGUAGE_HEADS.get(kind, "token_classification")
    model, shape, _ = applied("tiny_attention", kind, head)
    tokens, mask = ids(), torch.ones(2, 7, dtype=torch.long)
    changed = tokens.clone()
    with torch.no_grad():
        if shape.architecture == "encoder":
            mask[:, 5:] = 0
            changed[:, 5:] = 17
            answers = [model(input_ids=item, attention_mask=mask).logits[:, :5] for item in (tokens, changed)]
        else:
            changed[:, -1] = 17
            own = {"decoder_input_ids": tokens} if head == "seq2seq_lm" else {"input_ids": tokens}
            other = dict.fromkeys(own, changed)
            rest = {"input_ids": tokens} if head == "seq2seq_lm" else {}
            answers = [model(**rest, **item).logits[:, :-1] for item in (own, other)]
    assert torch.allclose(*answers, atol=1e-5)


def test_a_sparse_adapter_trains_no_weight_that_was_cut_off(tmp_path: Path) -> None:
    import torch
    from peft import PeftModel

    model, shape, _ = applied("sparse_adapter", "bert", "sequence_classification", bottleneck=10, sparsity=0.9)
    down = model.base_model.model.bert.encoder.layer[0].output.dense.psel_sparse_down["default"]
    assert down.values.shape == (32,) == down.index.unique().shape
    model.save_pretrained(tmp_path)
    again = PeftModel.from_pretrained(base("bert", "sequence_classification")[0], tmp_path, low_cpu_mem_usage=True)
    with torch.no_grad():
        assert torch.allclose(again.eval()(ids()).logits, model(ids()).logits, atol=1e-6)
    dense, wide = (
        METHODS[name].trainable_parameters(shape, resolve_values(METHODS[name], shape))
        for name in ("adapter_houlsby", "large_sparse")
    )
    assert wide - dense == 64 * 4, "as many weights as a dense adapter of half the width, and 64 biases more at a site"


@pytest.mark.parametrize("name", ["bi_adapter", "propetl_adapter", "propetl_lora", "propetl_prefix"])
def test_signs_and_masks_are_stored_eight_to_a_byte(name: str, tmp_path: Path) -> None:
    import torch
    from safetensors.torch import load_file

    model, _, _ = applied(name, "bert", "sequence_classification")
    model.save_pretrained(tmp_path)
    packed = [item for item in load_file(tmp_path / "adapter_model.safetensors").values() if item.dtype == torch.uint8]
    binary = [item for key, item in model.named_parameters() if "psel_binary" in key or "_scores" in key]
    assert sum(item.numel() for item in packed) == sum(-(-item.numel() // 8) for item in binary) > 0


def test_layers_of_propetl_see_different_parts_of_one_prototype() -> None:
    model, shape, _ = applied("propetl_adapter", "llama", "causal_lm", density=0.25)
    layers = [module for name, module in model.named_modules() if name.endswith("o_proj")]
    first, second = (layer.matrices("default")[0] for layer in layers)
    assert first.shape == (48, shape.hidden_size)
    assert (first != 0).float().mean() == pytest.approx(0.25, abs=0.05)
    both = (first != 0) & (second != 0)
    assert both.any() and not ((first != 0) == (second != 0)).all()
    assert (first[both] == second[both]).all()


@pytest.mark.parametrize("name", ["idpt", "upl_fixed", "upl_dynamic"])
def test_a_generated_prefix_depends_on_the_row_and_not_on_the_batch_around_it(name: str) -> None:
    import torch

    model, _, _ = applied(name, "bert", "sequence_classification")
    layer = model.base_model.model.bert.encoder.layer[0].attention.self
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    with torch.no_grad():
        together = model(ids(), attention_mask=mask).logits
        keys = layer.prefix("default")[0]
        assert keys.shape[0] == 2 and not torch.allclose(keys[0], keys[1], atol=1e-3)
        alone = torch.cat([model(ids()[:1]).logits, model(ids()[1:, :4]).logits])
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_gate_of_dynamic_upl_goes_from_the_task_prefix_to_that_of_the_instance() -> None:
    import torch

    model, _, _ = applied("upl_dynamic", "bert", "sequence_classification")
    layer, gate = model.base_model.model.bert.encoder.layer[0].attention.self, model.base_model.psel_instance_gate
    with torch.no_grad():
        gate["default"].weight.zero_()
        gate["default"].bias.fill_(-30.0)
        model(ids())
        assert torch.allclose(layer.prefix("default")[0][1], layer.leaf("key", "default"), atol=1e-5)
        gate["default"].bias.fill_(30.0)
        assert not torch.allclose(layer.prefix("default")[0][1], layer.leaf("key", "default"), atol=1e-1)


def test_generated_prefixes_are_not_offered_where_instance_and_answer_are_one_text() -> None:
    assert all("decoder" not in METHODS[name].architectures for name in ("idpt", "upl_fixed", "upl_dynamic"))


def test_embedding_prompts_leave_the_length_and_padding_as_they_are() -> None:
    import torch

    model, shape, _ = applied("embedding_prompt", "bert", "token_classification")
    mask = torch.ones(2, 7, dtype=torch.long)
    mask[1, 4:] = 0
    with torch.no_grad():
        together = model(ids(), attention_mask=mask).logits
        assert together.shape == (2, 7, shape.head.num_labels)
        assert torch.allclose(together[1, :4], model(ids()[1:, :4]).logits[0], atol=1e-5)
        with model.disable_adapter():
            assert not torch.allclose(model(ids(), attention_mask=mask).logits, together, atol=1e-3)


def test_fusion_weighs_trained_adapters_that_stay_as_they_are(tmp_path: Path) -> None:
    import torch

    from peftselect import load
    from peftselect.testing.models import saved_parameters

    sources = []
    for name in ("first", "second"):
        trained, shape, _ = applied("adapter_pfeiffer", "bert", "sequence_classification")
        trained.save_pretrained(tmp_path / name)
        sources.append(str(tmp_path / name))
    method = METHODS["adapter_fusion"]
    values = resolve_values(method, shape, {"adapters": ",".join(sources)})
    assert method.unsupported(shape, values) is None
    model = method.apply(base("bert", "sequence_classification")[0], values, ApplyContext(shape, "test", 10))
    layer = model.base_model.model.bert.encoder.layer[0].output.dense
    with torch.no_grad():  # of two equal adapters any mix is the adapter itself
        states = torch.randn(2, 5, 64)
        assert torch.allclose(
            layer(states), trained.base_model.model.bert.encoder.layer[0].output.dense(states), atol=1e-5
        )
    trainable = {name for name, item in model.named_parameters() if item.requires_grad and "psel_" in name}
    assert {name.rsplit("psel_fusion_", 1)[1].split(".")[0] for name in trainable} == {"query", "key", "value"}
    assert sum(item.numel() for item in model.parameters() if item.requires_grad) == method.trainable_parameters(
        shape, values
    )
    model.save_pretrained(tmp_path / "fused")
    assert saved_parameters(tmp_path / "fused" / "adapter_model.safetensors") == method.saved_parameters(shape, values)
    again = load(tmp_path / "fused", base("bert", "sequence_classification")[0])
    with torch.no_grad():
        assert torch.allclose(again(ids()).logits, model.eval()(ids()).logits, atol=1e-6)


def test_fusion_says_what_it_needs(tmp_path: Path) -> None:
    _, shape = base("bert", "sequence_classification")
    method = METHODS["adapter_fusion"]
    assert method.unsupported(shape, resolve_values(method, shape)) == f"it needs {method.needs}"
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    folders = {"adapters": f"{tmp_path},{tmp_path}"}
    why = method.unsupported(shape, resolve_values(method, shape, folders))
    assert why == f"{tmp_path} holds no adapter of adapter_pfeiffer, but LORA"
    assert "holds no adapter (FileNotFoundError)" in str(method.unsupported(shape, {"adapters": ("/nowhere", "/no")}))


MIXING = [
    (name, kind)
    for name, method in METHODS.items()
    for kind in ("gpt2", "llama", "t5")
    if not method.decodes_with_cache
    and getattr(type(method), "__module__", "").startswith("peftselect.plugins")
    and method.saves_adapter
    and name != "lily"  # peft's own layers: runs and what loads them turn the cache off
    and (shape := tiny_shape(kind, LANGUAGE_HEADS[kind])) is not None
    and LANGUAGE_HEADS[kind] in method.heads
    and method.unsupported(shape, resolve_values(method, shape)) is None
]


@pytest.mark.parametrize(("name", "kind"), MIXING)
def test_what_cannot_decode_with_a_cache_decodes_without(name: str, kind: str) -> None:
    import torch

    model, _, _ = applied(name, kind, LANGUAGE_HEADS[kind])
    assert model.generation_config.use_cache is False
    wanted: dict[str, Any] = {"max_new_tokens": 6, "do_sample": False, "pad_token_id": 0, "eos_token_id": None}
    whole = model.generate(input_ids=ids(), use_cache=False, **wanted)
    assert torch.equal(model.generate(input_ids=ids(), **wanted), whole)


def test_there_are_methods_that_mix_positions() -> None:
    assert {"tiny_attention", "lst"} <= {name for name, _ in MIXING}
