"""Base class of ladder side-tuning and side-tuning: a small transformer as deep as the base beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.families.side import SideMethod
from peftselect.hyperparameter import Hyperparameter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from peftselect.method import ApplyContext
    from peftselect.shape import ModelShape

#: what the parts of a side block are called, by the role of the base's layer
PARTS = {
    "query": "query", "key": "key", "value": "value", "attention_output": "output",
    "ffn_gate": "ffn_gate", "ffn_in": "ffn_in", "ffn_out": "ffn_out",
}  # fmt: skip
#: the narrowest side network
NARROWEST = 4


class LadderMethod(SideMethod):
    """Side blocks of a fraction of the base's width, which start pruned from the base's."""

    decodes_with_cache: ClassVar[bool] = False
    #: whether side blocks read the base's blocks, each over a gate
    reads: ClassVar[bool] = True

    def reduction_setting(self) -> Hyperparameter:
        """How narrow it is."""
        return Hyperparameter(
            "reduction", 8, "int", "how much narrower the side network is", 1, 64, search=(4, 8, 16), log=True
        )

    def merging(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """How the result meets the base's last states."""
        raise NotImplementedError

    def sizes(self, shape: ModelShape, values: Mapping[str, Any]) -> dict[str, Any]:
        """Width, head size and inner width of the side network."""
        reduction = int(values["reduction"])
        return {
            "side": min(max(shape.hidden_size // reduction, NARROWEST), shape.hidden_size),
            "heads": shape.num_heads,
            "kv_heads": shape.num_kv_heads,
            "head_dim": max(shape.head_dim // reduction, 1),
            "inner": max(shape.intermediate_size // reduction, 1),
        }

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Side blocks with their gates and projections, both ways in, the way out, and the head."""
        size, width = self.sizes(shape, values), shape.hidden_size
        side, norm = size["side"], size["side"] * (1 if shape.rms_norm else 2)
        into = width * side + side
        attention = 2 * side * (size["heads"] + size["kv_heads"]) * size["head_dim"]
        feed_forward = (3 if shape.gated_ffn else 2) * side * size["inner"]
        block = (into + 1) * self.reads + 2 * norm + attention + feed_forward
        pairs = shape.architecture == "encoder-decoder"
        total: int = shape.num_layers * block + pairs * shape.decoder_layers * (attention + norm)
        total += (1 + pairs) * (into + norm) + side * width + width
        total += "share" in self.merging(values)
        return total + shape.head.parameters

    def kept_numbers(self, shape: ModelShape, values: Mapping[str, Any], stack: Any) -> float:
        """The base's states that projections read, and what a small transformer keeps."""
        size = self.sizes(shape, values)
        side, queries = size["side"], size["heads"] * size["head_dim"]
        layers = shape.encoder_layers if stack == "encoder" else shape.decoder_layers
        crosses = stack == "decoder" and shape.architecture == "encoder-decoder"
        block: float = self.reads * (shape.hidden_size + 2 * side) + 4 * side + (1 + crosses) * (2 * side + 5 * queries)
        block += (4 if shape.gated_ffn else 2) * size["inner"]
        return float(layers * block + shape.hidden_size + 2 * side)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our LadderConfig."""
        from peftselect import LadderConfig

        paths: dict[str, dict[str, str]] = {}
        for linear in shape.linears:
            if linear.role in PARTS:
                part = f"{'cross_' * linear.cross_attention}{PARTS[linear.role]}"
                paths.setdefault(linear.stack, {})[part] = linear.path
        return LadderConfig(
            **self.sizes(shape, values),
            gated=shape.gated_ffn,
            activation=shape.activation,
            rms_norm=shape.rms_norm,
            scaled=not shape.relative_attention,
            reads=self.reads,
            **self.merging(values),
            paths=paths,
            **self.side_arguments(shape, context),
        )
