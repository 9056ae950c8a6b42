"""LQ-LoRA: codes and low-rank factors chosen together, with bits dealt out among the matrices under a memory budget."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, PackedLowRankMethod, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class LqLora(PackedLowRankMethod):
    """Low-rank plus quantised matrix decomposition, mixed bits by an integer program (Guo et al. 2023)."""

    name = "lq_lora"
    title = "LQ-LoRA"
    summary = "LoRA over codes of 2 to 8 bits a matrix, dealt out by an integer program to keep within a memory budget."
    aliases = ("lqlora", "low_rank_plus_quantized")
    structure = Structure(
        intra_connectivity="dense: linear MLP",
        inter_connectivity="fixed: dense",
        parameters_adapted="reparameterization over a quantised base",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all linear layers",
        integration_form="scaled addition",
        workspace="attention; FFN",
    )
    # Guo et al. 2023, section 4: budgets of 2.5 to 4 bits a weight, rank 64, all linear layers
    references = (
        Reference(
            "LQ-LoRA: Low-rank Plus Quantized Matrix Decomposition for Efficient Language Model Finetuning",
            "https://arxiv.org/abs/2311.12023",
            2023,
        ),
    )
    rate_from = "ours, QLoRA's by width; the authors' scripts have 2e-5 at rank 64 over 10 epochs (RoBERTa-large)"
    thesis = ("2.3",)
    formula = "Σ r·(in + out) over the target layers"
    records_like = "lora"
    judged = False
    # what is left, its decomposition, and what the factors cover
    packing_bytes_per_weight = 30.0
    limits = (
        PackedLowRankMethod.loaded_whole,
        "Loading repeats the decomposition, so that the adapter needs the very weights it was made from.",
        "Merged, the base is in floating point again, as large as it was.",
    )
    simplified = (
        "Errors count alike for all weights: the paper also weighs them by the Fisher information of data.",
        "Scales take 8 bits throughout; the paper lets the program choose their bits, too.",
        "The program reads errors of one round, found by a randomised decomposition.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Those of an update over packed weights, with a budget in place of bits, and the rounds."""
        kept = [item for item in super().hyperparameters(shape) if item.name != "bits"]
        return (
            *kept,
            Hyperparameter(
                "budget", 3.0, "float", "bits a weight on average, scales included", 2.25, 8.25, search=(2.75, 3.0, 4.0)
            ),
            Hyperparameter("rounds", 5, "int", "rounds of quantising and factorising", 1, 50, search=(1, 5)),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The factors cannot hold more singular values than there are."""
        return super().unsupported(shape, values) or self.rank_too_large(shape, values)

    def matrix_bytes(self, linear: LinearModule, values: Mapping[str, Any], compute_bytes: int) -> int:
        """The budget's share."""
        return round(linear.in_features * linear.out_features * float(values["budget"]) / 8)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our BudgetConfig."""
        from peftselect import BudgetConfig

        settings = self.settings(shape, {**values, "bits": 0}, context)
        return BudgetConfig(budget=float(values["budget"]), rounds=int(values["rounds"]), **settings)


@hookimpl
def register_methods() -> tuple[type[PackedLowRankMethod], ...]:
    """Offer LQ-LoRA."""
    return (LqLora,)
