"""Methods that prune whole channels or heads under a low-rank update while they train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.families.linear import LowRankMethod
from peftselect.hyperparameter import Hyperparameter

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from peftselect.method import ApplyContext
    from peftselect.shape import LinearModule, ModelShape

_FEEDERS = {"ffn_out": ("ffn_in", "ffn_gate"), "attention_output": ("query", "key", "value")}


class ChannelMethod(LowRankMethod):
    """Low-rank updates of the layers around pruned groups; merging cuts feed-forward channels out."""

    quantized_base: ClassVar[Any] = "no"
    #: roles of the layers that lose inputs
    readers: ClassVar[tuple[str, ...]] = ("ffn_out",)
    #: by what a group is judged: "gradient" or "magnitude"
    score: ClassVar[str] = "gradient"

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale, dropout, sparsity and rate; the layers are those around what is pruned."""
        kept = [item for item in super().hyperparameters(shape) if item.name not in {"use_rslora", "target_modules"}]
        sparsity = Hyperparameter(
            "sparsity", 0.5, "float", "share of the channels (and heads) that is pruned", 0.0, 0.95, search=(0.2, 0.5)
        )
        return (*kept, sparsity)

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """That of a plain update of this rank and scale."""
        return super().learning_rate({**values, "use_rslora": False})

    def targets(self, shape: ModelShape, values: Mapping[str, Any]) -> tuple[LinearModule, ...]:
        """What feeds a pruned group, and what reads it."""
        roles = [role for reader in self.readers for role in (reader, *_FEEDERS[reader], *_fused(reader))]
        return shape.by_role(*roles)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There must be something to prune."""
        return None if shape.by_role(*self.readers) else f"{shape.model_type} has no layer whose inputs can be pruned"

    def groups(self, shape: ModelShape) -> Iterator[tuple[LinearModule, int, list[tuple[LinearModule, int]]]]:
        """(reader, its inputs a group, feeders with their rows a group); heads that share keys go together."""
        for reader in shape.by_role(*self.readers):
            heads = reader.role == "attention_output"
            number = shape.num_kv_heads if heads else reader.in_features
            if reader.in_features % number:
                continue
            feeders = [
                item
                for item in shape.by_role(*_FEEDERS[reader.role])
                if (item.stack, item.cross_attention) == (reader.stack, reader.cross_attention)
                and item.out_features % number == 0
            ]
            yield reader, reader.in_features // number, [(item, item.out_features // number) for item in feeders]

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The factors, and a byte for each group."""
        masks = sum(reader.count * (reader.in_features // width) for reader, width, _ in self.groups(shape))
        return self.trainable_parameters(shape, values) + masks

    def sliced(self, shape: ModelShape) -> bool:
        """Whether the configuration can say that channels are gone: one width, and a matrix for each part."""
        widths = {item.in_features for item in shape.by_role("ffn_out")}
        return len(widths) == 1 and not shape.by_role("ffn_gate_in")

    def settings(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> dict[str, Any]:
        """What the tuner is told."""
        groups = [
            [reader.path, width, [[item.path, rows] for item, rows in feeders]]
            for reader, width, feeders in self.groups(shape)
        ]
        return {
            "r": int(values["r"]),
            "scale": float(values["lora_alpha"]) / int(values["r"]),
            "dropout": float(values["lora_dropout"]),
            "groups": groups,
            "sparsity": float(values["sparsity"]),
            "score": self.score,
            "sliced": self.sliced(shape),
            "target_modules": self.peft_targets(shape, self.targets(shape, values)),
            "task_type": context.task_type,
            "modules_to_save": context.modules_to_save,
        }


def _fused(reader: str) -> tuple[str, ...]:
    """Fused matrices around a reader: they are updated, but their rows do not tell groups apart."""
    return ("query_key_value",) if reader == "attention_output" else ("ffn_gate_in",)
