"""Optimizers that need losses alone: nothing is kept for a backward pass, and no gradient is made.

Malladi et al. 2023 (MeZO, arXiv 2305.17333), after Spall 1992: the slope along one random direction is the difference
of two losses, and the direction is drawn again from its seed whenever it is needed, so that it takes no memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

Loss = Callable[[], torch.Tensor]


class ForwardOptimizer(torch.optim.Optimizer):
    """An optimizer that a training loop hands the loss of each micro-batch as a function, in place of a backward pass.

    :meth:`measure` is called once a micro-batch and :meth:`step` once all of a batch have been measured. A method whose
    ``optimizer`` gives one of these says ``forward_only = True``. What a later sitting needs to go on exactly belongs
    into ``param_groups`` or ``state``, as with every optimizer.
    """

    def measure(self, loss: Loss) -> torch.Tensor:
        """Call ``loss`` as often as needed, under whatever weights; put the weights back, and return a loss to show.

        Losses of the micro-batches of one step are scaled so that they add up to that of the batch.
        """
        raise NotImplementedError

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Change the weights by what was measured since the last step."""
        raise NotImplementedError


class ZerothOrderSGD(ForwardOptimizer):
    """MeZO: ``theta <- theta - lr * (L(theta + eps z) - L(theta - eps z)) / (2 eps) * z`` with ``z ~ N(0, I)``.

    ``z`` is drawn tensor by tensor from a seed that follows from ``seed`` and the number of steps taken; at any moment
    one tensor of it exists. Without ``seed`` that of torch's generator serves.
    """

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], lr: float, epsilon: float = 1e-3, seed: int | None = None
    ) -> None:
        known = {"lr": lr, "epsilon": epsilon, "seed": torch.initial_seed() if seed is None else seed, "steps": 0}
        super().__init__(list(parameters), known)
        self._slope: torch.Tensor | None = None

    @torch.no_grad()
    def measure(self, loss: Loss) -> torch.Tensor:
        """The mean of both losses; their difference is kept for :meth:`step`."""
        self._move(1)
        above = loss().float()
        self._move(-2)
        below = loss().float()
        self._move(1)
        slope = (above - below) / (2 * self.param_groups[0]["epsilon"])
        self._slope = slope if self._slope is None else self._slope + slope
        return (above + below) / 2

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Go down the slope along the direction of this step."""
        if self._slope is None:
            return
        for group, parameter, direction in self._directions():
            parameter.addcmul_(direction, self._slope.to(parameter.dtype), value=-group["lr"])
        self._slope = None
        for group in self.param_groups:
            group["steps"] += 1

    def _move(self, times: float) -> None:
        for group, parameter, direction in self._directions():
            parameter.add_(direction, alpha=times * group["epsilon"])

    def _directions(self) -> Iterator[tuple[dict[str, Any], torch.nn.Parameter, torch.Tensor]]:
        """Each parameter with its part of the direction, the same at every call between two steps."""
        first = self.param_groups[0]
        seed = (first["seed"] * 1_000_003 + first["steps"]) % 2**63
        generators: dict[torch.device, torch.Generator] = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                device = parameter.device
                if device not in generators:
                    # one of its own, so that nothing else that is drawn depends on it
                    generators[device] = torch.Generator(device).manual_seed(seed)
                drawn = torch.randn(parameter.shape, generator=generators[device], device=device, dtype=parameter.dtype)
                yield group, parameter, drawn
