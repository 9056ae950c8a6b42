"""EVA: LoRA that starts from the directions in which the inputs of each layer vary most."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from peftselect import ALL_HEADS, Hyperparameter, LowRankMethod, Reference, hookimpl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Eva(LowRankMethod):
    """A starts as the leading right singular vectors of what its layer reads of the training data; B at zero."""

    name = "eva"
    title = "EVA"
    summary = (
        "LoRA whose first factor starts at the leading directions of the training data, seen before the first step."
    )
    aliases = ("explained_variance_adaptation",)
    references = (
        Reference(
            "One Initialization to Rule them All: Fine-tuning via Explained Variance Adaptation",
            "https://arxiv.org/abs/2410.07170",
            2024,
        ),
    )
    rate_from = "LoRA's; the authors' script has 5e-4 for LLaMA-2-7B at rank 16"
    formula = "Σ r·(in + out) over the target layers"
    # a search model reads pairs of texts, of which its own loss makes the batches
    heads = ALL_HEADS
    records_like = "lora"
    judged = False
    simplified = (
        "Every layer keeps its rank, where the paper deals ranks out anew among the layers.",
        "The directions are those of a number of batches, where the paper goes on until they no longer turn.",
    )

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """LoRA's, and how much data is looked at."""
        batches = Hyperparameter("batches", 32, "int", "training batches looked at before the first step", 1, 10_000)
        return (*super().hyperparameters(shape), batches)

    def callbacks(self, values: Mapping[str, Any], context: ApplyContext) -> list[Any]:
        """Look at the data before the first step; a run that goes on has its factors."""
        from transformers import TrainerCallback

        class LookAtData(TrainerCallback):  # type: ignore[misc]
            """Starts the first factors from the data."""

            def on_train_begin(
                self, args: Any, state: Any, control: Any, model: Any = None, train_dataloader: Any = None, **_: Any
            ) -> None:
                if state.global_step == 0 and train_dataloader is not None:
                    start_from(getattr(model, "module", model), islice(train_dataloader, int(values["batches"])))

        return [LookAtData()]


def start_from(model: Any, batches: Iterable[Mapping[str, Any]]) -> None:
    """Set every first factor of ``model`` to the leading directions of its layer's inputs over ``batches``.

    Directions are kept for a layer and brought up to date batch by batch (an incremental singular value decomposition).
    """
    import torch

    layers = [module for module in model.modules() if hasattr(module, "lora_A") and "default" in module.lora_A]
    found: dict[Any, Any] = {}

    def look(module: Any, inputs: tuple[Any, ...]) -> None:
        states = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).float()
        rank = module.lora_A["default"].weight.shape[0]
        states = torch.cat([found[module], states]) if module in found else states
        _, sizes, directions = torch.svd_lowrank(states, q=min(rank, *states.shape))
        found[module] = sizes[:, None] * directions.T

    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    training = model.training
    devices = [next(model.parameters()).device.index] if torch.cuda.is_available() else []
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=devices), model.eval().disable_adapter():
            for batch in batches:
                model(**batch)
        for module, leading in found.items():
            weight = module.lora_A["default"].weight
            unit = leading / leading.norm(dim=1, keepdim=True).clamp(min=1e-12)
            weight.data[: len(unit)] = unit.to(weight)
    finally:
        for hook in hooks:
            hook.remove()
        model.train(training)


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer EVA."""
    return (Eva,)
