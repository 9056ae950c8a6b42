"""ProPETL with low-rank updates: one update a shape of layer, of which each layer uses the part its mask shows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, MemoryTraits, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class ProPetlLora(LowRankMethod):
    """A prototype low-rank update under a mask for each layer."""

    name = "propetl_lora"
    title = "ProPETL (LoRA)"
    summary = "One low-rank update shared by all layers of a shape, half of it shown to each by a binary mask; merges."
    aliases = ("propelt_lora",)
    family = "reparameterized"
    structure = Structure(
        intra_connectivity="dense: linear MLP under a binary mask",
        inter_connectivity="fixed: sparse",
        parameters_adapted="reparameterization",
        parameter_sharing="shared: layers",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="scaled addition",
        workspace="attention: queries/values",
    )
    # the authors' script has rank 32 and a tenth of the prototype a layer; half of it, as for adapters, is ours
    references = (
        Reference(
            "One Network, Many Masks: Towards More Parameter-Efficient Transfer Learning",
            "https://arxiv.org/abs/2305.17682",
            2023,
        ),
    )
    rate_from = "ours, twice LoRA's; the authors' script has 3e-2 for the masks' scores and 1e-4 for the weights"
    formula = "one r·(in + out) a shape and a score for each of its weights in each layer"
    thesis = ("2.3", "T2.7")
    limits = ("Training keeps a float score for each weight of each layer; only the file is small.",)
    simplified = ("Masks over layers alone; the paper also shares one prototype among tasks.",)
    starts_as_base = True
    # the mask halves each factor
    base_learning_rate = 1e-3

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Rank, scale, density of the masks, targets and rate."""
        kept = [item for item in super().hyperparameters(shape) if item.name not in {"lora_dropout", "use_rslora"}]
        density = Hyperparameter(
            "density", 0.5, "float", "share of the prototype that a layer uses", 0.01, 1, search=(0.1, 0.3, 0.5)
        )
        return (*kept, density)

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """That of a plain update of this rank and scale."""
        return super().learning_rate({**values, "use_rslora": False})

    def _prototypes(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """r (in + out) for each shape of layer."""
        shapes = {(item.in_features, item.out_features) for item in self.targets(shape, values)}
        return sum(int(values["r"]) * (read + width) for read, width in shapes)

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The prototypes, a score for each weight of each layer, and the head."""
        return self._prototypes(shape, values) + super().trainable_parameters(shape, values)

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers in the file: the prototypes, a byte for eight weights of a mask, and the head."""
        rank = int(values["r"])
        masks = sum(
            item.count * -(-rank * (item.in_features + item.out_features) // 8) for item in self.targets(shape, values)
        )
        return self._prototypes(shape, values) + masks + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The inputs of both factors, as for a plain update without dropout."""
        return self.low_rank_memory(shape, {**values, "lora_dropout": 0.0}, int(values["r"]), compute_bytes)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our ProConfig."""
        from peftselect import ProConfig

        return ProConfig(
            form="lora",
            inner=int(values["r"]),
            scale=float(values["lora_alpha"]) / int(values["r"]),
            density=values["density"],
            target_modules=self.peft_targets(shape, self.targets(shape, values)),
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer ProPETL with low-rank updates."""
    return (ProPetlLora,)
