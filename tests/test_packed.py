"""Weights in few bits: what the codes give back, what they take, and what the methods that pack do with a base."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from peftselect.method import ApplyContext, resolve_values
from peftselect.modeling import merge
from peftselect.plugin_manager import host
from peftselect.testing.models import tiny_folder, tiny_shape
from peftselect.tuners.packed_linear import IntegerLinear, NormalLinear, PackedLinear, float_matrix
from peftselect.tuners.packing import nearest, normal_levels, pack, unpack

PACKING = ("loftq", "qa_lora", "peqa")


@pytest.mark.parametrize("bits", range(1, 9))
def test_codes_come_back_and_take_as_many_bits_as_they_have(bits: int) -> None:
    codes = torch.randint(0, 2**bits, (1024,), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed = pack(codes, bits)
    assert packed.numel() == 1024 * bits // 8
    assert torch.equal(unpack(packed, bits, 1024), codes)
    assert torch.equal(unpack(pack(codes[:1001], bits), bits, 1001), codes[:1001])


def test_normal_float_of_four_bits_has_the_levels_of_bitsandbytes() -> None:
    from bitsandbytes.functional import get_4bit_type

    assert torch.allclose(normal_levels(4), get_4bit_type("nf4", device="cpu"), atol=1e-6)


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_nearest_level_is_found(bits: int) -> None:
    levels = normal_levels(bits)
    assert len(levels) == 2**bits and 0 in levels
    numbers = torch.linspace(-1.1, 1.1, 999)
    by_hand = (numbers.unsqueeze(1) - levels).abs().amin(1)
    assert torch.allclose((numbers - levels[nearest(numbers, levels).int()]).abs(), by_hand)


@pytest.mark.parametrize("conv1d", [False, True])
@pytest.mark.parametrize("kind", [NormalLinear, IntegerLinear])
def test_a_packed_layer_is_near_the_layer_and_passes_gradients_on(kind: type[PackedLinear], conv1d: bool) -> None:
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    linear = Conv1D(48, 64) if conv1d else torch.nn.Linear(64, 48)
    packed: Any = kind(linear, 8, 32, float_matrix(linear))  # type: ignore[call-arg]
    states = torch.randn(3, 5, 64, requires_grad=True)
    out, expected = packed(states), linear(states)
    # NormalFloat is coarse where weights are large, whatever the bits
    assert (out - expected).norm() < 0.05 * expected.norm()
    grad = torch.randn_like(out)
    (got,) = torch.autograd.grad(out, states, grad)
    assert torch.allclose(got, grad @ packed.matrix(), atol=1e-5)
    assert torch.allclose(packed.plain()(states), out, atol=1e-5)
    assert packed.weight.numel() == 48 * 64


def tiny(kind: str = "bert", head: str = "sequence_classification", dtype: torch.dtype = torch.float32) -> Any:
    import transformers

    from peftselect.modeling import AUTO_CLASSES

    loaded = getattr(transformers, AUTO_CLASSES[head]).from_pretrained(tiny_folder(kind, head), dtype=dtype)
    return loaded.eval()


def wrapped(name: str, dtype: torch.dtype = torch.float32, **overrides: Any) -> tuple[Any, Any, dict[str, Any]]:
    """(model, shape, values) of a method on a tiny BERT."""
    shape = tiny_shape("bert", "sequence_classification")
    assert shape is not None
    method = host().method(name)
    values = resolve_values(method, shape, overrides)
    torch.manual_seed(0)
    return method.apply(tiny(dtype=dtype), values, ApplyContext(shape, "test", 10)), shape, values


def answer(model: Any) -> torch.Tensor:
    with torch.no_grad():
        logits: torch.Tensor = model.eval()(input_ids=torch.arange(10, 18)[None]).logits
    return logits


def shaken(model: Any) -> Any:
    """The model with every adapter tensor moved, as training would."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, item in model.named_parameters():
            if item.requires_grad and "psel_" in name:
                item.mul_(1 + 0.1 * torch.randn(item.shape, generator=generator))
                item.add_(0.02 * torch.randn(item.shape, generator=generator) * ("scale" not in name))
    return model


@pytest.mark.parametrize("name", PACKING)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bits", [3, 4])
def test_what_a_packed_base_takes_is_what_the_method_says(name: str, dtype: torch.dtype, bits: int) -> None:
    model, shape, values = wrapped(name, dtype, bits=bits)
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    held = [item for layer in layers for item in (layer.weight, *layer.buffers())]
    traits = host().method(name).memory(shape, values, dtype.itemsize)
    assert traits.packed_bytes == sum(item.numel() * item.element_size() for item in held)
    assert traits.packed_weights == sum(layer.weight.quant_state.shape.numel() for layer in layers)
    assert len(layers) == 12


@pytest.mark.parametrize("name", [*PACKING, "lq_lora"])
def test_a_packed_adapter_loads_without_memory_for_its_start(name: str, tmp_path: Path) -> None:
    from peft import PeftModel

    model = shaken(wrapped(name)[0])
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        again = PeftModel.from_pretrained(tiny(), tmp_path, adapter_name="renamed", low_cpu_mem_usage=True)
    assert torch.allclose(answer(again), answer(model), atol=1e-5)
    assert not any(item.is_meta for item in again.parameters())


@pytest.mark.parametrize("name", [*PACKING, "lq_lora"])
def test_a_merged_packed_base_can_be_taken_apart_again(name: str) -> None:
    model = shaken(wrapped(name)[0])
    apart = answer(model)
    model.merge_adapter()
    assert torch.allclose(answer(model), apart, atol=1e-5)
    model.unmerge_adapter()
    assert torch.allclose(answer(model), apart, atol=1e-5)
    layer = next(module for module in model.modules() if isinstance(module, PackedLinear))
    assert layer.weight.dtype == torch.int8


@pytest.mark.parametrize("bits", [2, 4])
def test_loftq_is_nearer_to_the_base_than_rounding_and_not_farther_after_more_rounds(bits: int) -> None:
    from peftselect.tuners.packed_low_rank import decompose

    torch.manual_seed(0)
    linear = torch.nn.Linear(128, 96)
    matrix = float_matrix(linear)

    def error(rounds: int) -> float:
        packed, down, up = decompose(linear, matrix, bits, 64, 16, rounds)
        return float((packed.matrix() + up @ down - matrix).norm())

    assert error(1) < 0.9 * (NormalLinear(linear, bits, 64, matrix).matrix() - matrix).norm()
    assert error(5) <= error(1)


def test_qa_lora_merged_is_still_integers_of_the_same_bits() -> None:
    model = shaken(wrapped("qa_lora")[0])
    merged = merge(model)
    weight = merged.bert.encoder.layer[0].attention.self.query.weight
    groups = weight.view(32, 1, 32)
    low, high = groups.amin(2, keepdim=True), groups.amax(2, keepdim=True)
    codes = (groups - low) / ((high - low) / 15)
    used = [int((row - row.round()).abs().max() < 1e-3) for row in codes.flatten(0, 1)]
    assert sum(used) >= 30  # a row whose codes leave out 0 or 15 has another step
    assert not torch.equal(weight, tiny().bert.encoder.layer[0].attention.self.query.weight)


def test_peqa_holds_the_scales_of_several_tasks_over_one_base() -> None:
    model, shape, values = wrapped("peqa")
    first = answer(shaken(model))
    context = ApplyContext(shape, "test", 10)
    model.add_adapter("second", host().method("peqa").peft_config(shape, values, context))
    model.set_adapter("second")
    assert not torch.allclose(answer(model), first, atol=1e-5)
    model.set_adapter("default")
    assert torch.allclose(answer(model), first, atol=1e-6)
    other = resolve_values(host().method("peqa"), shape, {"bits": 3})
    with pytest.raises(ValueError, match="packed already, in 4 bits and blocks of 32"):
        model.add_adapter("third", host().method("peqa").peft_config(shape, other, context))


def test_a_group_that_does_not_fill_the_rows_is_refused() -> None:
    shape = tiny_shape("bert", "sequence_classification")
    assert shape is not None
    for name in ("qa_lora", "peqa"):
        method = host().method(name)
        values = resolve_values(method, shape, {"group_size": 24})
        assert method.unsupported(shape, values) == "groups of 24 do not fill the inputs of every target"


def test_a_base_that_is_quantised_already_is_refused() -> None:
    from peftselect.tuners.packed_linear import float_matrix

    layer = torch.nn.Linear(4, 4)
    layer.weight = torch.nn.Parameter(torch.zeros(4, 4, dtype=torch.int8), requires_grad=False)
    with pytest.raises(ValueError, match="quantised already"):
        float_matrix(layer)


def test_the_integer_program_finds_the_best_choice_within_the_budget() -> None:
    import itertools

    from peftselect.tuners.bit_budget import deal

    generator = torch.Generator().manual_seed(1)
    costs = (torch.rand(4, 3, generator=generator) + 0.5).tolist()
    errors = torch.rand(4, 3, generator=generator).tolist()
    within = [
        sum(errors[row][place] for row, place in enumerate(places))
        for places in itertools.product(range(3), repeat=4)
        if sum(costs[row][place] for row, place in enumerate(places)) <= 4
    ]
    dealt = deal(costs, errors, 4)
    assert sum(costs[row][place] for row, place in enumerate(dealt)) <= 4
    assert sum(errors[row][place] for row, place in enumerate(dealt)) == pytest.approx(min(within), rel=2e-3)
    with pytest.raises(ValueError, match="no choice of bits keeps within"):
        deal(costs, errors, 0.5)


def test_lq_lora_keeps_within_its_budget_and_mixes_bits(tmp_path: Path) -> None:
    import json

    model, shape, values = wrapped("lq_lora", budget=2.75)
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    held = sum(item.numel() * item.element_size() for layer in layers for item in (layer.weight, layer.scales))
    traits = host().method("lq_lora").memory(shape, values, 4)
    assert 0.85 * traits.packed_bytes < held <= traits.packed_bytes
    assert len({(layer.bits, layer.block) for layer in layers}) > 1
    model.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "adapter_config.json").read_text())
    assert saved["choices"]["bert.encoder.layer.0.attention.self.query"] == [layers[0].bits, layers[0].block]
