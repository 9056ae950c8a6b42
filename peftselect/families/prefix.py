"""Base class of the methods that put trained keys and values before every attention."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.families.linear import path_pattern
from peftselect.hyperparameter import Hyperparameter
from peftselect.method import MemoryTraits, Method

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.method import ApplyContext
    from peftselect.shape import LinearModule, ModelShape

#: roles of the layers that make keys
_KEYS = ("key", "query_key_value")


class PrefixMethod(Method):
    """Keys and values before those of each attention: encoder, decoder and cross-attention."""

    family: ClassVar[Any] = "additive"
    quantized_base: ClassVar[Any] = "possible"
    acts_on: ClassVar[frozenset[str]] = frozenset({"attention"})
    default_tokens: ClassVar[int] = 20

    def prefix_settings(self) -> tuple[Hyperparameter, ...]:
        """Length, and the network that makes the prefix."""
        return (
            Hyperparameter(
                "num_virtual_tokens", self.default_tokens, "int", "length of the prefix", 1, 1000, search=(10, 20, 50)
            ),
            Hyperparameter("prefix_projection", False, "bool", "make the prefix by an MLP, as the paper does"),
            Hyperparameter("encoder_hidden_size", 512, "int", "width of that MLP", 1, 16384, search=(128, 512, 800)),
        )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Length, network and rate."""
        rate = Hyperparameter("learning_rate", 1e-2, "float", "peak learning rate", 1e-6, 1.0, log=True)
        return (*self.prefix_settings(), rate)

    def attentions(self, shape: ModelShape) -> tuple[LinearModule, ...]:
        """One linear layer of each attention: that which makes its keys."""
        return shape.by_role(*_KEYS)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The attention must be called through transformers' registry, and by its fused function."""
        if not self.attentions(shape):
            return f"keys of {shape.model_type} are not made by a linear layer"
        if not calls_registered_attention(shape.model_type):
            return f"the attention of {shape.model_type} cannot be exchanged in transformers"
        if dict(shape.config).get("attn_logit_softcapping"):
            return f"the attention of {shape.model_type} caps its scores, which the fused function cannot"
        return None

    def prefix_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """n keys and n values an attention; or the MLP, its n inputs, and an output for each of these."""
        rows, width = int(values["num_virtual_tokens"]), shape.kv_size
        sites = sum(linear.count for linear in self.attentions(shape))
        if not values["prefix_projection"]:
            return 2 * rows * width * sites
        hidden = int(values["encoder_hidden_size"])
        return rows * width + (width + 1) * hidden + (hidden + 1) * 2 * width * sites

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The prefixes, and the head."""
        return self.prefix_parameters(shape, values) + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """Longer keys and values."""
        return MemoryTraits(prefix_positions=int(values["num_virtual_tokens"]), prefix_everywhere=True)

    def prefix_arguments(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """What every prefix configuration is given."""
        return {
            "target_modules": attention_pattern(shape),
            "num_virtual_tokens": int(values["num_virtual_tokens"]),
            "width": shape.kv_size,
            "projection": int(values["encoder_hidden_size"]) if values["prefix_projection"] else 0,
            "task_type": context.task_type,
            "modules_to_save": context.modules_to_save,
        }


def attention_pattern(shape: ModelShape) -> str:
    """A pattern of the attention modules: those that hold the layers which make keys."""
    return path_pattern(linear.path.rpartition(".")[0] for linear in shape.by_role(*_KEYS))


@cache
def calls_registered_attention(model_type: str) -> bool:
    """Whether the installed transformers calls this architecture's attention through its registry.

    Read off its source, which spares the import of the model and a list that would grow old.
    """
    found = find_spec("transformers")
    if found is None or found.origin is None:
        return False
    name = model_type.removesuffix("_text").replace("-", "_")
    file = Path(found.origin).parent / "models" / name / f"modeling_{name}.py"
    return file.is_file() and "ALL_ATTENTION_FUNCTIONS" in file.read_text(encoding="utf-8")
