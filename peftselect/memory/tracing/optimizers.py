"""Optimizers for traced steps: the states and the temporaries of the real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from peftselect.memory.trace import NotTracedError


class FusedAdamW(torch.optim.Optimizer):
    """Stands for the fused AdamW kernel, which has no fake form: two states a parameter, all work in place."""

    def __init__(self, parameters: Iterable[torch.nn.Parameter]) -> None:
        super().__init__(parameters, {"lr": 1e-4})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make the states at the first step, and touch everything in place."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float32, device=parameter.device)
                    state["exp_avg"] = torch.zeros_like(parameter)
                    state["exp_avg_sq"] = torch.zeros_like(parameter)
                state["step"].add_(1)
                state["exp_avg"].add_(parameter.grad)
                parameter.sub_(state["exp_avg"])


def make_optimizer(name: str, parameters: list[torch.nn.Parameter]) -> Any:
    """The optimizer that a recipe names; NotTracedError for those whose kernels cannot run on fake tensors."""
    if name == "adamw":
        return FusedAdamW(parameters)
    if name == "adamw_foreach":
        return torch.optim.AdamW(parameters, lr=1e-4, foreach=True)
    if name == "sgd":
        return torch.optim.SGD(parameters, lr=1e-4, foreach=False)
    raise NotTracedError(f"the optimizer {name} is not traced")
