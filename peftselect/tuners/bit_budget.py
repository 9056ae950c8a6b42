"""LQ-LoRA: weights as codes and factors, with bits dealt out among the matrices under a budget.

Guo et al. 2023 (arXiv 2311.12023): section 3.1 decomposes a matrix as LoftQ does; section 3.2 chooses for each matrix
how many bits and how large blocks by an integer program over the errors that each choice would leave.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from peft.tuners.tuners_utils import check_target_module_exists
from torch import nn

from peftselect.tuners.packed_linear import SCALE_BLOCK, NormalLinear, PackedLinear, float_matrix
from peftselect.tuners.packed_low_rank import PackedConfig, PackedLowRankLayer, PackedModel, decompose
from peftselect.tuners.registry import register_tuner

#: bits of a weight, and weights that share a scale
CHOICES: tuple[tuple[int, int], ...] = tuple((bits, block) for bits in (2, 3, 4, 8) for block in (16, 32, 64))


@dataclass
class BudgetConfig(PackedConfig):
    """``budget`` is in bits a weight, scales included; ``choices`` says what was dealt out to each matrix."""

    type_name: ClassVar[str] = "PSEL_BUDGET"

    budget: float = field(default=3.0, metadata={"help": "bits a weight on average, scales included"})
    choices: dict[str, list[int]] = field(default_factory=dict, metadata={"help": "bits and block of each matrix"})


class BudgetLayer(PackedLowRankLayer):
    """A layer packed in as many bits as it was dealt."""

    adapter_layer_names: tuple[str, ...] = ("psel_budget_down", "psel_budget_up")
    parameter_names: ClassVar[tuple[str, ...]] = adapter_layer_names

    def pack(self, matrix: torch.Tensor, config: Any) -> PackedLinear:
        """Codes of what the factors do not cover."""
        bits, block = config.choices[self.key]
        base, down, up = decompose(self.base_layer, matrix, bits, block, config.r, config.rounds)
        self._started = down, up
        return base


class BudgetModel(PackedModel):
    """The tuner, which deals the bits out before it packs anything; a saved adapter says what it was dealt."""

    prefix = "psel_budget_"
    tuner_layer_cls = BudgetLayer

    def _prepare_model(self, peft_config: Any, model: nn.Module) -> None:
        super()._prepare_model(peft_config, model)
        if peft_config.choices:
            return
        names, costs, errors = [], [], []
        for name, module in model.named_modules():
            if check_target_module_exists(peft_config, name):
                matrix = float_matrix(module)
                names.append(name)
                costs.append([cost(matrix.numel(), *choice) for choice in CHOICES])
                errors.append(losses(module, matrix, peft_config.r))
        dealt = deal(costs, errors, peft_config.budget * sum(row[0] / _bits(CHOICES[0]) for row in costs))
        peft_config.choices = {name: list(CHOICES[place]) for name, place in zip(names, dealt, strict=True)}


def _bits(choice: tuple[int, int]) -> float:
    """Bits a weight of a choice where blocks are whole."""
    bits, block = choice
    return bits + (8 + 32 / SCALE_BLOCK) / block


def cost(number: int, bits: int, block: int) -> float:
    """Bits that so many weights take, scales included."""
    return number * _bits((bits, block))


def losses(linear: nn.Module, matrix: torch.Tensor, rank: int) -> list[float]:
    """Squared error that each of CHOICES leaves beside factors of ``rank``, by a randomised decomposition."""
    found = []
    with torch.random.fork_rng(devices=[]):
        for bits, block in CHOICES:
            if matrix.is_cuda:
                torch.manual_seed(0)
            else:  # the same, without the stacks that torch keeps of each call for cards
                torch.default_generator.manual_seed(0)
            missed = matrix - NormalLinear(linear, bits, block, matrix).matrix()
            wanted = min(rank, *missed.shape)
            _, sizes, _ = torch.svd_lowrank(missed, q=wanted, niter=2)
            found.append(float((missed.square().sum() - sizes.square().sum()).clamp_min(0)))
    return found


def deal(costs: list[list[float]], errors: list[list[float]], budget: float) -> list[int]:
    """For each matrix the place of its choice: the least sum of errors whose costs stay within ``budget`` (bits).

    ValueError where even the fewest bits are too many.
    """
    import numpy as np
    from scipy.optimize import Bounds, LinearConstraint, milp
    from scipy.sparse import csr_matrix, kron

    price, loss = np.array(costs), np.array(errors)
    matrices, choices = price.shape
    one_each = kron(np.eye(matrices), np.ones((1, choices)))
    answer = milp(
        loss.ravel() / max(loss.max(), 1e-30),
        integrality=np.ones(loss.size),
        bounds=Bounds(0, 1),
        constraints=[
            LinearConstraint(csr_matrix(one_each), 1, 1),
            LinearConstraint(csr_matrix(price.reshape(1, -1) / budget), 0, 1),
        ],
        options={"mip_rel_gap": 1e-3, "time_limit": 60},
    )
    if answer.x is None:
        raise ValueError(f"no choice of bits keeps within {budget / 8:,.0f} bytes")
    return [int(place) for place in answer.x.reshape(matrices, choices).argmax(1)]


register_tuner(BudgetConfig, BudgetModel)
