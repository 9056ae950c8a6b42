"""What stays for the whole run: weights, adapter, gradients, optimizer states; and how devices share them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect.method import ADAPTER_HEADER_BYTES, LANGUAGE_MODEL_HEADS, PROMPTED

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import MemoryTraits, Method, Recipe
    from peftselect.problem import Sharding
    from peftselect.shape import ModelShape

COMPUTE_BYTES = {"bf16": 2, "fp16": 2, "fp32": 4, "pure_bf16": 2}
#: bytes a parameter of optimizer states in float32 training; "adamw" is the fused kernel, "adamw_foreach" the one that
#: works on lists and needs copies while it steps. The 8-bit kinds keep two float32 scales for 256 parameters on the
#: card. Adafactor keeps a sum for each row and column of a matrix: next to nothing of a base's, more of an adapter's
OPTIMIZER_BYTES = {
    "adamw": 8.0, "adamw_foreach": 8.0, "paged_adamw_8bit": 8 / 256, "adamw_8bit": 2 + 8 / 256, "adafactor": 0.01,
    "sgd": 0.0,
}  # fmt: skip
_ADAFACTOR_ON_ADAPTERS = 0.25
#: float32 tensors as large as the one at hand which Adafactor works with; 16-bit weights and gradients are copied, too
_ADAFACTOR_TENSORS, _ADAFACTOR_COPIES = 2, 2
#: NF4 keeps half a byte a weight, a scale for 64 weights in 8 bits, and a float32 scale for 256 of those
NF4_BYTES = 0.5 + 1 / 64 + 4 / (64 * 256)
INT8_BYTES = 1.0
FLOAT32 = 4


def total_parameters(method: Method, shape: ModelShape, values: Mapping[str, Any]) -> int:
    """Parameters of the base model and of what the method adds to it."""
    if not method.saves_adapter or method.family == "selective":  # it trains what is there
        return shape.total_parameters
    return shape.total_parameters + max(method.trainable_parameters(shape, values) - shape.head.parameters, 0)


def saved_bytes(method: Method, shape: ModelShape, values: Mapping[str, Any]) -> int:
    """Size of the file that a run writes: adapters, and models that were trained whole, are saved in float32."""
    return FLOAT32 * method.saved_parameters(shape, values) + ADAPTER_HEADER_BYTES


def linear_parameters(shape: ModelShape) -> int:
    """Weights of the linear layers in the blocks: what quantisation packs and autocast copies."""
    return sum(linear.count * linear.in_features * linear.out_features for linear in shape.linears)


def weight_bytes(shape: ModelShape, traits: MemoryTraits, recipe: Recipe) -> int:
    """The base model's weights as they are held while training."""
    total = shape.total_parameters
    if traits.trains_base_weights:
        return total * trainable_bytes(traits, recipe)
    if recipe.quantization:
        packed = _packed(shape)
        # what is not packed is turned into float32 for stability (prepare_model_for_kbit_training)
        per_weight = NF4_BYTES if recipe.quantization == "nf4" else INT8_BYTES
        return round(packed * per_weight) + (total - packed) * FLOAT32
    return (total - traits.packed_weights) * COMPUTE_BYTES[recipe.precision] + traits.packed_bytes


def loaded_bytes(shape: ModelShape, traits: MemoryTraits, recipe: Recipe) -> int:
    """What is held on the way to a base that the method packs, beyond what it holds in the end; 0 for all others."""
    if not traits.packed_weights:
        return 0
    return traits.packed_weights * COMPUTE_BYTES[recipe.precision] - traits.packed_bytes + traits.packing_bytes


def _packed(shape: ModelShape) -> int:
    """Weights that quantisation packs: those of the linear layers in the blocks, with few exceptions."""
    return sum(
        linear.count * linear.in_features * linear.out_features
        for linear in shape.linears
        if not stays_float(shape, linear.role)
    )


def stays_float(shape: ModelShape, role: str) -> bool:
    """transformers keeps the last feed-forward matrix of T5 out of quantisation."""
    return shape.model_type in ("t5", "mt5") and role == "ffn_out"


def trainable_bytes(traits: MemoryTraits, recipe: Recipe) -> int:
    """Bytes of one trained parameter: adapters are float32 whatever the base is, and so are masters of its weights.

    Without gradients there are no masters.
    """
    if traits.trains_base_weights and traits.backward_reaches == "nothing":
        return COMPUTE_BYTES[recipe.precision]
    return 2 if traits.trains_base_weights and recipe.precision == "pure_bf16" else FLOAT32


def optimizer_bytes(trainable: int, traits: MemoryTraits, recipe: Recipe) -> int:
    """Optimizer states of ``trainable`` parameters."""
    per_parameter = OPTIMIZER_BYTES[recipe.optimizer]
    if recipe.optimizer in ("adamw", "adamw_foreach"):
        per_parameter *= trainable_bytes(traits, recipe) / FLOAT32
    if recipe.optimizer == "adafactor" and not traits.trains_base_weights:
        per_parameter = _ADAFACTOR_ON_ADAPTERS
    return round(trainable * per_parameter)


def step_bytes(trainable: int, shape: ModelShape, traits: MemoryTraits, recipe: Recipe) -> int:
    """Temporaries of the optimizer's step.

    The list form of AdamW copies what it works on. Adafactor (as in transformers) takes one tensor after the other.
    """
    width = trainable_bytes(traits, recipe)
    if recipe.optimizer == "adamw_foreach":
        return trainable * width
    if recipe.optimizer == "adafactor":
        tensors = _ADAFACTOR_TENSORS + _ADAFACTOR_COPIES * (width < FLOAT32)
        return min(trainable, largest_matrix(shape)) * FLOAT32 * tensors
    return 0


def tied_bytes(shape: ModelShape, traits: MemoryTraits, recipe: Recipe) -> int:
    """The second gradient of a matrix that embeds and speaks: at the end of the backward pass it meets the first."""
    if not (traits.trains_base_weights and shape.tied_embeddings and shape.head.kind in LANGUAGE_MODEL_HEADS):
        return 0
    return shape.vocab_size * shape.embedding_size * trainable_bytes(traits, recipe)


def largest_matrix(shape: ModelShape) -> int:
    """Elements of the largest matrix of the base."""
    return max(_largest_linear(shape), shape.vocab_size * shape.embedding_size)


def _largest_linear(shape: ModelShape) -> int:
    return max(linear.in_features * linear.out_features for linear in shape.linears)


def direction_bytes(shape: ModelShape, traits: MemoryTraits, recipe: Recipe) -> int:
    """The random direction in which weights are moved, drawn for one tensor of the base at a time."""
    if not traits.trains_base_weights:
        return 0
    return largest_matrix(shape) * trainable_bytes(traits, recipe)


def dequantised_bytes(shape: ModelShape, recipe: Recipe) -> int:
    """The largest matrix, unpacked for its product: 4 bits in the compute type, 8 bits in that of the input."""
    if not recipe.quantization:
        return 0
    return _largest_linear(shape) * (COMPUTE_BYTES[recipe.precision] if recipe.quantization == "nf4" else FLOAT32)


def autocast_bytes(shape: ModelShape, traits: MemoryTraits, recipe: Recipe, trainable: int) -> int:
    """16-bit copies of float32 weights, which autocast makes for the step and autograd keeps.

    Full fine-tuning copies every matrix; over a quantised base the adapter is copied, and what is not packed, the
    language-model matrix first. Copies that are rounded are made in any precision.
    """
    if recipe.precision not in ("bf16", "fp16"):
        return COMPUTE_BYTES[recipe.precision] * linear_parameters(shape) if traits.rounds_weights else 0
    if traits.backward_reaches == "nothing":  # what is frozen is copied for one product, and trained factors are small
        return 0
    speaks = shape.head.kind in LANGUAGE_MODEL_HEADS | PROMPTED
    last = shape.vocab_size * shape.embedding_size if speaks else 0
    if traits.trains_base_weights:
        return 2 * (linear_parameters(shape) + last)
    return 2 * (linear_parameters(shape) - _packed(shape) + last + trainable) if recipe.quantization else 0


def per_device(parts: dict[str, int], devices: int, sharding: Sharding) -> dict[str, int]:
    """Parts as one of ``devices`` holds them: ZeRO 1 shards optimizer states, 2 gradients too, 3 weights too.

    Plain data parallelism shards nothing and adds its buckets, as large as the gradients.
    """
    if devices == 1:
        return parts
    shared = {"none": (), "zero1": ("optimizer",), "zero2": ("optimizer", "gradients"),
              "zero3": ("optimizer", "gradients", "weights", "adapter")}[sharding]  # fmt: skip
    held = {name: -(-size // devices) if name in shared else size for name, size in parts.items()}
    if "gradients" not in shared:
        held["gradients"] += parts["gradients"]
    return held
