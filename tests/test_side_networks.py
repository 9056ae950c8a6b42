"""Networks beside a frozen base: what the backward pass enters, what autograd keeps, and reversal against autograd."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from peftselect.method import ApplyContext, resolve_values
from peftselect.plugin_manager import host
from peftselect.shape import ModelShape
from peftselect.shapes import read_shape
from peftselect.testing.models import TINY

DETACHED = ("lst", "side_tuning", "res_tuning_bypass")
KINDS = ("bert", "gpt2", "llama", "t5", "bart")


def adapted(name: str, kind: str, layers: int = 2, **overrides: Any) -> tuple[Any, ModelShape]:
    """A tiny random model under a method, every trained tensor moved away from where it starts."""
    import transformers

    head = {"bert": "token_classification", "t5": "seq2seq_lm", "bart": "seq2seq_lm"}.get(kind, "causal_lm")
    arguments = {"vocab_size": 96, "pad_token_id": 0, "eos_token_id": 1, "num_labels": 3, **TINY[kind]}
    for name_of_layers in ("num_hidden_layers", "n_layer"):
        if name_of_layers in arguments:
            arguments[name_of_layers] = layers
    config = transformers.AutoConfig.for_model(kind, **arguments)
    torch.manual_seed(0)
    loader = {
        "token_classification": transformers.AutoModelForTokenClassification,
        "seq2seq_lm": transformers.AutoModelForSeq2SeqLM,
        "causal_lm": transformers.AutoModelForCausalLM,
    }[head]
    shape, method = read_shape(config.to_dict(), head, 3), host().method(name)
    values = resolve_values(method, shape, overrides)
    model = method.apply(loader.from_config(config), values, ApplyContext(shape, "test", 10))
    with torch.no_grad():
        for item in model.parameters():
            if item.requires_grad:
                item.add_(0.05 * torch.randn_like(item))
    return model, shape


def ids(rows: int = 2, length: int = 9) -> dict[str, torch.Tensor]:
    drawn = torch.randint(5, 90, (rows, length), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(drawn)
    mask[0, -3:] = 0
    return {"input_ids": drawn, "attention_mask": mask, "labels": drawn % 3}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", DETACHED)
def test_no_gradient_enters_the_base(name: str, kind: str) -> None:
    model, shape = adapted(name, kind)
    entered: list[str] = []

    def look(module: Any, inputs: Any, output: Any) -> None:
        if isinstance(output, torch.Tensor) and output.requires_grad:
            entered.append(type(module).__name__)

    for linear in shape.linears:
        for path, module in model.named_modules():
            if path.endswith("." + linear.path) and ".base_layer." in path:
                module.register_forward_hook(look)
    model.train()(**ids()).loss.backward()
    assert entered == []
    assert all(item.grad is not None for item in model.parameters() if item.requires_grad)


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_a_side_decoder_reads_the_side_encoder(kind: str) -> None:
    """The encoder's side blocks have no other way to the loss: the base's decoder gets the base's encoder alone."""
    model, _ = adapted("lst", kind)
    model(**ids()).loss.backward()
    reached = [
        name
        for name, item in model.named_parameters()
        if item.requires_grad and ".encoder." in name and item.grad.abs().sum() > 0
    ]
    assert len(reached) > 10


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_side_decoder_sees_nothing_that_comes_later(kind: str) -> None:
    model, _ = adapted("lst", kind)
    batch = ids()
    with torch.no_grad():
        whole = model.eval()(input_ids=batch["input_ids"]).logits
        half = model(input_ids=batch["input_ids"][:, :5]).logits
    assert torch.allclose(whole[:, :5], half, atol=1e-5)


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2"])
def test_reversed_blocks_give_the_gradients_of_kept_activations(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from peftselect.tuners import reversible

    def gradients() -> dict[str, torch.Tensor]:
        model, _ = adapted("meft", kind, layers=8)
        model.train()
        torch.manual_seed(4)
        model(**ids()).loss.backward()
        return {name: item.grad.clone() for name, item in model.named_parameters() if item.grad is not None}

    found = gradients()
    # the same function of the same streams, by autograd
    monkeypatch.setattr(
        reversible.Reversed, "apply", staticmethod(lambda streams, layer, given, *_: layer.both(streams, given)[0])
    )
    kept = gradients()
    assert set(found) == set(kept)
    for name, gradient in kept.items():
        # inputs that are found again to 64 bits may still round to other 32 bits
        assert torch.allclose(found[name], gradient, atol=5e-4 * float(gradient.abs().max()) + 1e-8), name


def test_reversed_dropout_is_drawn_again_alike() -> None:
    import transformers

    config = transformers.AutoConfig.for_model("bert", **{**TINY["bert"], "vocab_size": 96, "hidden_dropout_prob": 0.3})
    shape, method = read_shape(config.to_dict(), "token_classification", 3), host().method("meft")
    torch.manual_seed(0)
    base = transformers.AutoModelForTokenClassification.from_config(config)
    model = method.apply(base, resolve_values(method, shape), ApplyContext(shape, "test", 10)).train()
    batch = {**ids(), "labels": ids()["input_ids"] % 2}
    name = next(name for name, item in model.named_parameters() if "inner_up" in name and item.requires_grad)
    weight = dict(model.named_parameters())[name]

    def loss() -> torch.Tensor:
        torch.manual_seed(7)
        return model(**batch).loss

    loss().backward()
    slope = weight.grad[3, 2]
    with torch.no_grad():
        weight[3, 2] += 1e-2
        above = loss()
        weight[3, 2] -= 2e-2
        below = loss()
    assert float((above - below) / 2e-2) == pytest.approx(float(slope), rel=0.02, abs=1e-5)


def test_what_a_reversible_model_keeps_does_not_grow_with_its_layers() -> None:
    def kept(name: str, layers: int) -> int:
        model, _ = adapted(name, "llama", layers=layers)
        sizes: dict[int, int] = {}
        frozen = {item.untyped_storage().data_ptr() for item in model.parameters()}

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in frozen:
                sizes[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            model.train()(**ids(4, 32), use_cache=False)
        return sum(sizes.values())

    growth = kept("meft", 6) - kept("meft", 2)
    assert growth < 0.02 * (kept("lora", 6) - kept("lora", 2))
