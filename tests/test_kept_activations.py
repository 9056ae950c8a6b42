"""The closed form's activations against what autograd keeps of real modules: every architecture, several widths."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from peftselect.memory.activations import Work, block_bytes
from peftselect.memory.regime import HALF, MIXED, QUANTIZED, SINGLE, Regime
from peftselect.memory.states import linear_parameters
from peftselect.modeling import AUTO_CLASSES
from peftselect.shape import ModelShape
from peftselect.shapes import known_model_types, read_shape
from tests.test_shapes import CASES, QUESTIONS

ROWS, LENGTH, TARGET = 2, 32, 24
VOCABULARY = 96
#: seconds of sound
SECONDS = 0.1
LAYER_KEYS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers")
#: sums differ by the statistics of norms (a few bytes a position)
TOLERANCE = 0.05
#: rotating a part (or a view) of each head leaves the CPU's attention an output whose heads are put together in a copy
COPIES_ON_CPU = {"gpt_neox", "phi", "phi3"}


def build(kind: str, index: int, layers: int) -> tuple[Any, ModelShape]:
    """A tiny real model of so many blocks, without dropout, and its shape."""
    import transformers

    case = dict(CASES[kind][index])
    case |= {key: layers for key in LAYER_KEYS if key in case}
    if "num_decoder_layers" in case:
        case["num_decoder_layers"] = layers
    if "d_kv" in case:
        case["d_kv"] = 16  # the CPU's fused attention wants heads of a multiple of 8
    if kind == "gpt_neo":
        case["attention_types"] = [[["global", "local"], layers // 2]]
    config = transformers.AutoConfig.for_model(kind, vocab_size=VOCABULARY, decoder_start_token_id=0, **case)
    for name, value in vars(config).items():
        if "drop" in name and isinstance(value, float):
            setattr(config, name, 0.0)
    config.apply_spec_augment = config.use_weighted_layer_sum = False
    shape = read_shape(config.to_dict())
    assert not shape.dropout
    return getattr(transformers, AUTO_CLASSES[shape.head.kind]).from_config(config), shape


def batch(shape: ModelShape) -> dict[str, Any]:
    """A padded batch with labels."""
    import torch

    if shape.audio is not None:
        return sounds(shape)
    ids = torch.randint(2, 90, (ROWS, LENGTH))
    mask = torch.ones_like(ids)
    mask[0, -5:] = 0
    labels = {
        "encoder": torch.zeros(ROWS, dtype=torch.long),
        "decoder": ids,
        "encoder-decoder": torch.randint(2, 90, (ROWS, TARGET)),
    }
    return {"input_ids": ids, "attention_mask": mask, "labels": labels[shape.architecture]}


def sounds(shape: ModelShape) -> dict[str, Any]:
    """A batch of noise with labels; Whisper pads every clip to one length, and has no mask."""
    import torch

    assert shape.audio is not None
    if shape.audio.features > 1:
        heard = {"input_features": torch.randn(ROWS, shape.audio.features, shape.audio.frames(SECONDS))}
    else:
        heard = {"input_values": torch.randn(ROWS, shape.audio.frames(SECONDS))}
        heard["attention_mask"] = torch.ones_like(heard["input_values"], dtype=torch.long)
        heard["attention_mask"][0, -200:] = 0
    written = torch.randint(2, 90, (ROWS, TARGET))
    return {**heard, "labels": written if shape.head.kind == "speech_seq2seq" else torch.zeros(ROWS, dtype=torch.long)}


def kept(model: Any, inputs: Mapping[str, Any], *, autocast: bool) -> int:
    """Bytes of the distinct storages that autograd keeps of a forward pass, the model's own tensors apart."""
    import torch

    own = {tensor.untyped_storage().data_ptr() for tensor in [*model.parameters(), *model.buffers()]}
    seen: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage
        return tensor

    cast = torch.autocast("cpu", dtype=torch.bfloat16) if autocast else contextlib.nullcontext()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor), cast:
        model(**inputs)
    return sum(storage.nbytes() for storage in seen.values())


@contextlib.contextmanager
def powers_as_on_cuda() -> Iterator[None]:
    """Let the CPU's autocast take powers in float32, as CUDA's does."""
    import torch

    library = torch.library.Library("aten", "IMPL")
    outside = torch._C.DispatchKeySet(torch._C.DispatchKey.AutocastCPU)

    def power(base: Any, exponent: float) -> Any:
        with torch._C._ExcludeDispatchKeyGuard(outside):
            return torch.pow(base.float(), exponent)

    library.impl("pow.Tensor_Scalar", power, "AutocastCPU")
    try:
        yield
    finally:
        library._destroy()


def freeze(model: Any) -> None:
    """Freeze the base, and let the backward pass reach the embeddings, as an adapter in the first block does."""
    import torch

    model.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding) and module.num_embeddings == VOCABULARY:
            module.register_forward_hook(
                lambda _, __, output: output if output.requires_grad else output.requires_grad_(True)
            )
    for name, module in model.named_modules():
        if name.endswith(("feature_projection.projection", "encoder.conv2")):
            module.register_forward_hook(lambda _, __, output: output.requires_grad_(True))


def fixed(shape: ModelShape) -> bool:
    """Whether every input has one length, so that nothing is padded."""
    return shape.audio is not None and shape.audio.fixed_seconds is not None


def closed_form(shape: ModelShape, regime: Regime, *, trained: bool) -> float:
    """The closed form's bytes of one block of each stack."""
    encoder, decoder = shape.architecture != "decoder", shape.architecture != "encoder"
    target = TARGET if encoder else LENGTH
    read = shape.positions(LENGTH if shape.audio is None else SECONDS)
    work = Work(ROWS, read if encoder else 0, target if decoder else 0, 0, padded=not fixed(shape))
    stacks = [name for name, there in (("encoder", encoder), ("decoder", decoder)) if there]
    copied = (
        ROWS * LENGTH * shape.hidden_size * regime.attention if trained and shape.model_type in COPIES_ON_CPU else 0
    )
    return copied + sum(
        block_bytes(shape, stack, work, regime, trained=trained)  # type: ignore[arg-type]
        for stack in stacks
    )


def measured(kind: str, index: int, *, trained: bool, half: bool = False, autocast: bool = False) -> float:
    """Bytes of one block of each stack: the difference that two more blocks make, halved."""
    import torch

    totals = []
    for layers in (2, 4):
        torch.manual_seed(0)
        model, shape = build(kind, index, layers)
        model.train().config.use_cache = False
        if half:
            model = model.to(torch.bfloat16)
        if not trained:
            freeze(model)
        for name, parameter in model.named_parameters():
            if "relative_attention_bias" in name:  # else the CPU leaves the fused attention, which CUDA does not
                parameter.requires_grad_(False)
        copies = 2 * linear_parameters(shape) if autocast else 0
        inputs = {
            name: item.to(model.dtype) if item.is_floating_point() else item for name, item in batch(shape).items()
        }
        totals.append(kept(model, inputs, autocast=autocast) - copies)
    return (totals[1] - totals[0]) / 2


def test_every_architecture_is_measured() -> None:
    assert {kind for kind, _ in QUESTIONS} == set(known_model_types())


@pytest.mark.parametrize(("kind", "index"), QUESTIONS)
@pytest.mark.parametrize("trained", [False, True], ids=["frozen", "trained"])
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "bf16"])
def test_a_block_keeps_what_the_closed_form_says(kind: str, index: int, trained: bool, half: bool) -> None:
    shape = build(kind, index, 2)[1]
    expected = closed_form(shape, HALF if half else SINGLE, trained=trained)
    assert measured(kind, index, trained=trained, half=half) == pytest.approx(expected, rel=TOLERANCE)


@pytest.mark.parametrize(("kind", "index"), QUESTIONS)
def test_master_weights_under_autocast(kind: str, index: int) -> None:
    shape = build(kind, index, 2)[1]
    if shape.embedding_size != shape.hidden_size or (shape.audio and not fixed(shape)):
        pytest.skip("a projection before the blocks: the CPU's autocast, unlike CUDA's, leaves norms in 16 bits")
    expected = closed_form(shape, MIXED, trained=True)
    with powers_as_on_cuda():
        found = measured(kind, index, trained=True, autocast=True)
    assert found == pytest.approx(expected, rel=TOLERANCE)


def test_a_quantised_base(tmp_path: Any) -> None:
    import torch
    import transformers
    from peft import prepare_model_for_kbit_training

    totals = []
    for layers in (2, 4):
        model, shape = build("llama", 0, layers)
        model.save_pretrained(tmp_path / str(layers))
        packed = transformers.BitsAndBytesConfig(
            load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
        )
        model = transformers.AutoModelForCausalLM.from_pretrained(
            tmp_path / str(layers), dtype=torch.bfloat16, quantization_config=packed, device_map={"": "cpu"}
        )
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        model.train().config.use_cache = False
        freeze(model)
        totals.append(kept(model, batch(shape), autocast=True))
    assert (totals[1] - totals[0]) / 2 == pytest.approx(closed_form(shape, QUANTIZED, trained=False), rel=TOLERANCE)


#: (IA)3's factors and adapters without dropout, whose mask is wider on the CPU
METHODS = [("lora", {"lora_dropout": 0}), ("lora", {"lora_dropout": 0, "target_modules": "all-linear"}), ("ia3", {})]


@pytest.mark.parametrize("kind", ["llama", "bert", "t5", "gpt2"])
@pytest.mark.parametrize(("name", "settings"), METHODS, ids=["lora", "lora on all layers", "ia3"])
def test_what_a_method_adds(kind: str, name: str, settings: dict[str, Any]) -> None:
    import torch

    from peftselect.method import ApplyContext, resolve_values
    from peftselect.plugin_manager import host

    method, added, said = host().method(name), [], []
    for layers in (2, 4):
        torch.manual_seed(0)
        model, shape = build(kind, 0, layers)
        model = model.to(torch.bfloat16)
        model.train().config.use_cache = False
        freeze(model)
        base = kept(model, batch(shape), autocast=False)
        values = resolve_values(method, shape, settings)
        model = method.apply(model, values, ApplyContext(shape, "any", 10)).train()
        added.append(kept(model, batch(shape), autocast=False) - base)
        encoder, decoder = method.memory(shape, values, 2).kept_bytes_per_token
        said.append(ROWS * (LENGTH * encoder + (TARGET if kind == "t5" else LENGTH) * decoder))
    assert said[1] - said[0] > 0
    assert added[1] - added[0] == pytest.approx(said[1] - said[0], rel=TOLERANCE)
