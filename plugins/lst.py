"""LST: a small transformer beside the frozen one, fed by its blocks, so that no gradient enters the base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, SideMethod, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape

#: what the parts of a side block are called, by the role of the base's layer
PARTS = {
    "query": "query", "key": "key", "value": "value", "attention_output": "output",
    "ffn_gate": "ffn_gate", "ffn_in": "ffn_in", "ffn_out": "ffn_out",
}  # fmt: skip
#: the narrowest side network
NARROWEST = 4


class LadderSideTuning(SideMethod):
    """A ladder: side blocks, each reading a block of the base over a trained gate."""

    name = "lst"
    title = "Ladder side-tuning (LST)"
    summary = "Trains a small transformer that reads the frozen one's blocks: no gradient enters the base."
    aliases = ("ladder_side_tuning", "ladder-side-tuning")
    # Sung et al. 2022, section 4 and appendix: reduction 8 for T5-base, 3e-3 under AdamW
    references = (
        Reference(
            "LST: Ladder Side-Tuning for Parameter and Memory Efficient Transfer Learning",
            "https://arxiv.org/abs/2206.06522",
            2022,
        ),
    )
    formula = (
        "Σ over blocks of (d·s + s + 1 + attention, cross-attention and FFN of width s), and d·s + d; s = d/reduction"
    )
    thesis = ("2.3",)
    limits = (
        "Side blocks keep no keys and values: generation goes without the cache.",
        "Cannot be merged: every call of the model pays for the side network.",
    )
    simplified = (
        "Side blocks start pruned by the magnitude of weights; the paper's default is Fisher information on data.",
        "Side blocks have no biases and no position encodings, which the base's states carry; norms come first.",
        "By default its result is added to the base's last states, so that training starts there; merge=replace is the"
        " paper's.",
        "Where the base fuses queries, keys and values into one layer, side attention starts at random.",
        "Every block has its side block; the paper may drop some.",
    )
    decodes_with_cache = False
    starts_as_base = True

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """How much narrower it is, how it comes back, and the rate."""
        return (
            Hyperparameter(
                "reduction", 8, "int", "how much narrower the side network is", 1, 64, search=(4, 8, 16), log=True
            ),
            Hyperparameter(
                "merge", "add", "str", "how its result meets the base's last states", choices=("add", "replace")
            ),
            Hyperparameter("learning_rate", 3e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

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
        block = into + 1 + 2 * norm + attention + feed_forward
        pairs = shape.architecture == "encoder-decoder"
        total: int = shape.num_layers * block + pairs * shape.decoder_layers * (attention + norm)
        total += (1 + pairs) * (into + norm) + side * width + width
        return total + shape.head.parameters

    def kept_numbers(self, shape: ModelShape, values: Mapping[str, Any], stack: Any) -> float:
        """The base's states that projections read, and what a small transformer keeps."""
        size = self.sizes(shape, values)
        side, queries = size["side"], size["heads"] * size["head_dim"]
        layers = shape.encoder_layers if stack == "encoder" else shape.decoder_layers
        crosses = stack == "decoder" and shape.architecture == "encoder-decoder"
        block: float = shape.hidden_size + 6 * side + (1 + crosses) * (2 * side + 5 * queries)
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
            adds=values["merge"] == "add",
            paths=paths,
            **self.side_arguments(shape, context),
        )


@hookimpl
def register_methods() -> tuple[type[SideMethod], ...]:
    """Offer LST."""
    return (LadderSideTuning,)
