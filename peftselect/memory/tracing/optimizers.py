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


class EightBitAdamW(torch.optim.Optimizer):
    """Stands for bitsandbytes' 8-bit AdamW: two states of a byte, a float32 scale for each block of 256.

    Parameters under 4096 elements keep float32 states. Paged states lie in memory that the driver moves between card
    and host, outside the caching allocator.
    """

    BLOCK, SMALLEST = 256, 4096

    def __init__(self, parameters: Iterable[torch.nn.Parameter], *, paged: bool) -> None:
        super().__init__(parameters, {"lr": 1e-4})
        self.paged = paged

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Make the states at the first step; the kernels work in place."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None or self.state[parameter]:
                    continue
                self.state[parameter] = self._states(parameter)

    def _states(self, parameter: torch.Tensor) -> dict[str, torch.Tensor]:
        number, device = parameter.numel(), parameter.device
        if number < self.SMALLEST:
            return {name: torch.zeros_like(parameter, dtype=torch.float32) for name in ("state1", "state2")}
        # pages are reserved for large states alone (bitsandbytes: 1e5 elements)
        where = "cpu" if self.paged and number >= 100_000 else device
        blocks = -(-number // self.BLOCK)
        states = {name: torch.zeros(number, dtype=torch.uint8, device=where) for name in ("state1", "state2")}
        return states | {name: torch.zeros(blocks, device=device) for name in ("absmax1", "absmax2")}


def make_optimizer(name: str, model: Any) -> Any:
    """The optimizer that a recipe names, over what ``model`` trains, as the Trainer makes it.

    NotTracedError for those whose work on a card is not known here.
    """
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if name == "adamw":
        return FusedAdamW(trained)
    if name == "adamw_foreach":
        return torch.optim.AdamW(trained, lr=1e-4, foreach=True)
    if name == "sgd":
        return torch.optim.SGD(trained, lr=1e-4)
    if name == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(trained, lr=1e-4, scale_parameter=False, relative_step=False)
    if name in ("adamw_8bit", "paged_adamw_8bit"):
        return EightBitAdamW(trained, paged=name.startswith("paged"))
    if name == "lora_fa":
        from peft.optimizers import create_lorafa_optimizer

        config = next(iter(model.peft_config.values()))
        return create_lorafa_optimizer(model, r=config.r, lora_alpha=config.lora_alpha, lr=1e-4)
    raise NotTracedError(f"the optimizer {name} is not traced")
