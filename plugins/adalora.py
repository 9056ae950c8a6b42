"""AdaLoRA: LoRA in the form of an SVD, whose ranks are dealt out among the layers while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LinearMethod, MemoryTraits, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape

#: what peft's allocator of ranks has learnt so far
_IMPORTANCE = ("ipt", "exp_avg_ipt", "exp_avg_unc")


class AdaLora(LinearMethod):
    """Low-rank adaptation with an adaptive budget."""

    name = "adalora"
    title = "AdaLoRA"
    summary = "LoRA that starts with a larger rank and prunes it where it matters least, layer by layer."
    family = "reparameterized"
    aliases = ("adaptive_lora",)
    structure = Structure(
        intra_connectivity="dense: linear (SVD)",
        inter_connectivity="fixed: dense",
        parameters_adapted="reparameterization",
        parameter_sharing="none",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers, rank differs",
        integration_form="scaled addition",
        workspace="attention; FFN",
    )
    # initial rank 1.5 times the target, as Zhang et al. 2023 have it
    references = (
        Reference(
            "Adaptive Budget Allocation for Parameter-Efficient Fine-Tuning", "https://arxiv.org/abs/2303.10512", 2023
        ),
    )
    rate_from = (
        "ours, by width as for LoRA; Zhang et al. 2023 train at 5e-4 to 2.2e-3 for tens of epochs, one epoch wants "
        "more (MiniLM on 1,200 sentences of SST-2: 0.80 at 1e-2, 0.52 at 2e-3)"
    )
    thesis = ("T2.7",)
    formula = "Σ r0·(in + out + 1) over the target layers, r0 = init_r; target_r on average are kept"
    acts_on = frozenset({"attention", "ffn"})
    default_targets = "all-linear"
    mergeable = True
    quantized_base = "possible"
    # peft trains one adapter of a model; a second one can only be loaded beside it
    multi_adapter = False
    adds_inference_cost = False
    saved_count_is_exact = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Both ranks, scale, dropout, regularisation, targets and rate."""
        rate = float(f"{5e-3 * (768 / shape.hidden_size) ** 0.781:.1e}")
        return (
            Hyperparameter("init_r", 12, "int", "rank at the start", 1, 1024, search=(6, 12, 24), log=True),
            Hyperparameter("target_r", 8, "int", "average rank at the end", 1, 1024, search=(4, 8, 16), log=True),
            Hyperparameter("lora_alpha", 32, "float", "the update is scaled by alpha / rank", 1e-3, 4096, log=True),
            Hyperparameter("lora_dropout", 0.1, "float", "dropout before the update", 0, 0.9, search=(0.0, 0.05, 0.1)),
            Hyperparameter("orth_reg_weight", 0.1, "float", "weight of the orthogonality penalty in the loss", 0, 10),
            self.target_setting(shape),
            Hyperparameter("learning_rate", rate, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """The rank can only shrink."""
        if values["target_r"] > values["init_r"]:
            return f"target_r={values['target_r']} is above init_r={values['init_r']}: ranks are only taken away"
        if values["target_r"] == values["init_r"]:  # peft fails when there is no rank to mask
            return f"target_r={values['target_r']} equals init_r: there is no rank to take away (LoRA does that)"
        return super().unsupported(shape, values)

    def rank(self, values: Mapping[str, Any]) -> int | None:
        """Average rank at the end."""
        return int(values["target_r"])

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """init_r (in + out + 1) a target, and the head."""
        return self._count(shape, values, int(values["init_r"]))

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The budget spread evenly; which layers keep more of it is known only after training."""
        return self._count(shape, values, int(values["target_r"]))

    def _count(self, shape: ModelShape, values: Mapping[str, Any], rank: int) -> int:
        linears = self.targets(shape, values)
        adapters = sum(item.count * rank * (item.in_features + item.out_features + 1) for item in linears)
        return adapters + shape.head.parameters

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Weights of the targets, all of which the merged update changes, and the head."""
        linears = self.targets(shape, values)
        return sum(item.count * item.in_features * item.out_features for item in linears) + shape.head.parameters

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The inputs of both factors."""
        return self.low_rank_memory(shape, values, int(values["init_r"]), compute_bytes)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's AdaLoraConfig: a tenth of the steps to warm up, three tenths to settle with the final ranks."""
        from peft import AdaLoraConfig

        steps = max(context.total_steps, 1)
        warm_up, settle = steps // 10, max(steps * 3 // 10, 1 if steps > 1 else 0)
        linears = self.targets(shape, values)
        return AdaLoraConfig(
            init_r=int(values["init_r"]),
            target_r=int(values["target_r"]),
            lora_alpha=values["lora_alpha"],
            lora_dropout=values["lora_dropout"],
            orth_reg_weight=values["orth_reg_weight"],
            total_step=steps,
            tinit=warm_up,
            tfinal=settle,
            deltaT=max(1, min(10, (steps - warm_up - settle) // 10)),
            target_modules=self.peft_targets(shape, linears),
            fan_in_fan_out=any(item.conv1d for item in linears) and not context.quantized,
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Keep the divisor of each update fixed.

        Over a base in 16 bits peft lets it be trained, and does not save it: the loaded adapter would answer otherwise.
        """
        adapted = super().apply(model, values, context)
        for name, parameter in adapted.named_parameters():
            if ".ranknum." in name:
                parameter.requires_grad_(False)
        return adapted

    def callbacks(self, values: Mapping[str, Any], context: ApplyContext) -> list[Any]:
        """Deal out the ranks after each optimizer step, while the gradients are still there."""
        from transformers import TrainerCallback

        class AllocateRanks(TrainerCallback):  # type: ignore[misc]
            """Without this call AdaLoRA is a plain SVD of full rank (peft issue 745)."""

            def on_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
                getattr(model, "module", model).base_model.update_and_allocate(state.global_step)

            def training_state(self, model: Any) -> dict[str, Any]:
                tuner = model.base_model
                importance = {name: dict(getattr(tuner.rankallocator, name)) for name in _IMPORTANCE}
                return {**importance, "rank_pattern": tuner.peft_config[tuner.trainable_adapter_name].rank_pattern}

            def restore_training_state(self, model: Any, state: dict[str, Any]) -> None:
                tuner = model.base_model
                device = next(model.parameters()).device
                for name in _IMPORTANCE:
                    setattr(tuner.rankallocator, name, {key: item.to(device) for key, item in state[name].items()})
                tuner.peft_config[tuner.trainable_adapter_name].rank_pattern = state["rank_pattern"]

        return [AllocateRanks()]


@hookimpl
def register_methods() -> tuple[type[LinearMethod], ...]:
    """Offer AdaLoRA."""
    return (AdaLora,)
