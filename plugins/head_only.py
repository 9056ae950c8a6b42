"""Head only: the frozen base feeds a trained task head (linear probe, downstream tuning)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import (
    ALL_HEADS,
    LANGUAGE_MODEL_HEADS,
    Hyperparameter,
    MemoryTraits,
    Method,
    Reference,
    Structure,
    hookimpl,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class HeadOnly(Method):
    """The task head alone."""

    name = "head_only"
    title = "Head only"
    summary = "Trains the task head on frozen features: the cheapest baseline for tasks that have a head."
    family = "selective"
    aliases = ("linear_probe", "downstream_tuning", "superb_baseline", "baseline")
    structure = Structure(
        intra_connectivity="the module's own",
        inter_connectivity="fixed: dense",
        parameters_adapted="existing",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="in place",
        insertions="0 layers",
        integration_form="direct addition",
        workspace="head",
    )
    references = (
        Reference(
            "To Tune or Not to Tune? Adapting Pretrained Representations to Diverse Tasks",
            "https://arxiv.org/abs/1903.05987",
            2019,
        ),
        Reference(
            "SUPERB: Speech processing Universal PERformance Benchmark", "https://arxiv.org/abs/2105.01051", 2021
        ),
    )
    rate_from = (
        "ours; Peters et al. 2019 extract features at 1e-3 over many epochs, one wants more (MiniLM on 1,200 sentences "
        "of SST-2: 0.55 at 1e-2, 0.52 at 1e-3)"
    )
    thesis = ("T2.6", "T2.12")
    formula = "the head alone"
    heads = ALL_HEADS - LANGUAGE_MODEL_HEADS
    acts_on = frozenset({"head"})
    quantized_base = "possible"
    adds_inference_cost = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The learning rate alone."""
        return (Hyperparameter("learning_rate", 1e-2, "float", "peak learning rate", 1e-6, 1.0, log=True),)

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There must be a head to train."""
        return None if shape.head.parameters else f"{shape.model_type} has no task head of its own to train"

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The head."""
        return shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The backward pass ends at the head."""
        return MemoryTraits(backward_reaches="top")

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """A LoraConfig without targets, so that the head is saved and loaded like any adapter."""
        from peft import LoraConfig
        from peft.utils.constants import DUMMY_TARGET_MODULES

        return LoraConfig(
            target_modules=DUMMY_TARGET_MODULES,
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )


@hookimpl
def register_methods() -> tuple[type[Method], ...]:
    """Offer the task head alone."""
    return (HeadOnly,)
