"""Channels judged and pruned step by step while their low-rank updates train (LoRAPrune's schedule).

Beside the tuner rather than in it: tuners are imported whenever peft is, in the middle of transformers' own imports.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from peftselect.tuners.channels import cubic

if TYPE_CHECKING:
    import torch

#: weight of the past in the running mean of importance
PAST = 0.9


class PruneChannels(TrainerCallback):  # type: ignore[misc]
    """Judges and prunes before each optimizer step, while factors and their gradients belong together.

    ``steps`` is the number of optimizer steps to come.
    """

    def __init__(self, steps: int) -> None:
        self.steps = steps
        self.importance: dict[str, torch.Tensor] = {}

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        """One step more of the running mean, and of the schedule."""
        tuner = getattr(model, "module", model).base_model
        if not tuner.unsettled:
            return
        adapter = tuner.active_adapters[0]
        for name, now in tuner.importance(adapter).items():
            past = self.importance.get(name, now)
            self.importance[name] = PAST * past.to(now.device) + (1 - PAST) * now
        share = cubic(state.global_step + 1, self.steps, tuner.peft_config[adapter].sparsity)
        tuner.prune(adapter, self.importance, share)

    def training_state(self, model: Any) -> dict[str, Any]:
        """The running mean, and how far the schedule is; masks are tensors of the model."""
        tuner = model.base_model
        return {"importance": self.importance, "pruned": tuner.peft_config[tuner.active_adapters[0]].pruned}

    def restore_training_state(self, model: Any, state: dict[str, Any]) -> None:
        """Go on from there."""
        tuner = model.base_model
        self.importance = state["importance"]
        tuner.peft_config[tuner.active_adapters[0]].pruned = state["pruned"]
