"""Changes of every weight of a base: whole, mixed with the base at random, or cut down to the places that matter."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from peftselect.tuners.changes import Bounds, Change, moved, running_sums

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.tuners.overlay import Slot

#: bounds of the stretched concrete distribution of gates (Guo et al. 2021, section 3)
_LEFT, _RIGHT = -1.5, 1.5
#: keeps the logarithms of a uniform draw finite
_EDGE = 1e-6


class DenseChange(Change):
    """A trained number for each number of the base. In training a share of it is dropped, if so told.

    Dropping the change is mixing in the base's weights: ``W0 + dropout(W - W0)`` is Mixout (Lee et al. 2020, equation
    5). It is done to matrices; tables and vectors are trained as they are.
    """

    def __init__(self, slots: Sequence[Slot], config: Any, device: torch.device) -> None:
        super().__init__(slots, config, device)
        for slot in slots:
            zeros = torch.zeros(slot.parameter.shape, device=device)
            self.register_parameter(f"delta_{slot.number}", nn.Parameter(zeros))

    def delta(self, slot: Slot) -> torch.Tensor:
        """What is trained of a slot."""
        return self.get_parameter(f"delta_{slot.number}")

    def changed(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """The weight and its change."""
        delta = self.delta(slot)
        if self.training and self.config.dropout and delta.dim() > 1 and not slot.is_table:
            mixed: torch.Tensor = _Mixed.apply(weight, delta, self.config.dropout)  # type: ignore[no-untyped-call]
            return mixed
        return _added(weight, delta)


class PrunedChange(DenseChange):
    """A change of which the ``kept`` largest numbers are all that evaluation and the adapter's file see.

    While training, all but these are set back to the base every ``every`` steps: the projection of ChildPruning.
    """

    index: torch.Tensor

    def __init__(self, slots: Sequence[Slot], config: Any, device: torch.device) -> None:
        super().__init__(slots, config, device)
        self.register_buffer("index", self._places(config.kept), persistent=False)
        self._bounds = Bounds(running_sums(slot.size for slot in slots))
        self._order = {number: position for position, number in enumerate(self.slots)}
        self._largest_of: Any = None

    @property
    def settled(self) -> bool:
        """Whether the places are chosen for good, in ``index``."""
        return bool(self.config.search_steps) and self.steps >= self.config.search_steps

    def train(self, mode: bool = True) -> PrunedChange:
        """Whatever was largest is looked up anew."""
        self._largest_of = None
        return super().train(mode)

    def worth(self, slot: Slot) -> torch.Tensor:
        """The change of a slot as it would be kept."""
        return self.delta(slot)

    def changed(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """In training all of the change, in evaluation what is kept of it; once settled, that alone."""
        if self.training and not self.settled:
            return self.trained(slot, weight)
        places = self.places()
        low, high = self._bounds.of(places, self._order[slot.number])
        where = places[low:high].long() - self.starts[slot.number]
        return moved(weight, where, self.worth(slot).flatten()[where])

    def trained(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """The weight under the whole change."""
        return _added(weight, self.delta(slot))

    @torch.no_grad()
    def places(self) -> torch.Tensor:
        """Sorted places of what is kept: those chosen, or of the largest changes as they are now."""
        if self.settled:
            return self.index
        if self._stale():
            # one line of all numbers, beside the model: the card has no room for it
            line = torch.cat([self.worth(slot).detach().abs().flatten().cpu() for slot in self.slots.values()])
            found = line.topk(len(self.index)).indices.sort().values
            of = [(item, item._version) for item in self.parameters()]
            self._largest_of = of, found.to(self.index.device, self.index.dtype)
        largest: torch.Tensor = self._largest_of[1]
        return largest

    def _stale(self) -> bool:
        """Whether other changes may be the largest now. Those that were looked at are held: the identity of a tensor
        that is gone is soon another's."""
        # fused optimizers do not count their writes as versions; what is written in evaluation (a checkpoint) does
        if self.training or self._largest_of is None:
            return True
        pairs = zip(self.parameters(), self._largest_of[0], strict=True)
        return any(item is not seen or item._version != version for item, (seen, version) in pairs)

    def advance(self) -> bool:
        """Every so many steps set back all but the largest changes."""
        super().advance()
        if self.config.every and self.steps % self.config.every == 0:
            self._write(self.places())
        return False

    @torch.no_grad()
    def _write(self, places: torch.Tensor, *, empty: bool = False) -> None:
        """Leave the changes at ``places`` (nothing at all where ``empty``)."""
        for position, slot in enumerate(self.slots.values()):
            low, high = self._bounds.of(places, position)
            where = places[low:high].long() - self.starts[slot.number]
            left = torch.zeros_like(self.delta(slot)).flatten()
            if not empty:
                left[where] = self.worth(slot).flatten()[where]
            self.delta(slot).copy_(left.view_as(self.delta(slot)))

    def saved(self) -> dict[str, torch.Tensor]:
        """What is kept, and where."""
        with torch.no_grad():
            line = torch.cat([self.worth(slot).detach().flatten().cpu() for slot in self.slots.values()])
            places = self.places().cpu()
            return {"values": line[places.long()].clone(), "index": places.clone()}

    def load_saved(self, saved: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Whole changes again, to train on."""
        super().load_saved(saved)
        self.index.copy_(saved["index"])
        line = torch.zeros(self.numbers)
        line[saved["index"].long().cpu()] = saved["values"].float().cpu()
        return {
            f"delta_{slot.number}": line[start : start + slot.size].view(slot.parameter.shape)
            for slot, start in zip(self.slots.values(), self.starts.values(), strict=True)
        }


class TwoPassChange(PrunedChange):
    """All weights for ``search_steps``; then the largest changes begin anew from the base, alone (lottery tickets)."""

    def advance(self) -> bool:
        """Settle on the places when the first pass is over."""
        Change.advance(self)
        if self.steps != self.config.search_steps:
            return False
        self.steps -= 1  # still those of the first pass
        places = self.places()
        self.steps += 1
        self.index.copy_(places)
        self._write(self.index, empty=True)
        return True


class GatedChange(PrunedChange):
    """A change times a gate of its own for each number, which a penalty closes; settled after ``search_steps``.

    Gates are drawn from a hard concrete distribution while training (Guo et al. 2021, section 3.1); in evaluation they
    are at its middle. Settled, what was kept is trained on without them.
    """

    def __init__(self, slots: Sequence[Slot], config: Any, device: torch.device) -> None:
        super().__init__(slots, config, device)
        for slot in slots:
            opened = torch.full(slot.parameter.shape, float(config.gate_start), device=device)
            self.register_parameter(f"gate_{slot.number}", nn.Parameter(opened))

    def gate(self, slot: Slot) -> nn.Parameter:
        """The logarithms of the odds of a slot's gates."""
        return self.get_parameter(f"gate_{slot.number}")

    def worth(self, slot: Slot) -> torch.Tensor:
        """The change through its gates."""
        if self.settled:
            return self.delta(slot)
        return self.delta(slot) * _clipped(torch.sigmoid(self.gate(slot)))

    def trained(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """The weight under a draw of the gates."""
        answer: torch.Tensor = _Gated.apply(weight, self.delta(slot), self.gate(slot))  # type: ignore[no-untyped-call]
        return answer

    def advance(self) -> bool:
        """Settle when the gates have been learnt."""
        Change.advance(self)
        if self.steps != self.config.search_steps:
            return False
        self.steps -= 1  # gates still count
        self.index.copy_(self.places())
        self._write(self.index)
        self.steps += 1
        return True

    @torch.no_grad()
    def penalise(self) -> None:
        """The gradient of the expected number of open gates, which is the sum of their odds' sigmoids."""
        if self.settled:
            return
        for slot in self.slots.values():
            gate = self.gate(slot)
            if gate.requires_grad:
                chance = torch.sigmoid(gate)
                pull = self.config.penalty * chance * (1 - chance)
                gate.grad = pull if gate.grad is None else gate.grad + pull


class _Mixed(torch.autograd.Function):
    """``weight`` and a dropped ``delta``; of the draw a byte a number is kept."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, delta: torch.Tensor, chance: float) -> torch.Tensor:
        ctx.chance = chance
        stays = torch.rand_like(delta) >= chance
        ctx.save_for_backward(stays)
        return (delta * stays).div_(1 - chance).add_(weight).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        (stays,) = ctx.saved_tensors
        return None, (gradients[0].float() * stays).div_(1 - ctx.chance), None


class _Gated(torch.autograd.Function):
    """``weight + z * delta`` with z drawn; what it keeps for the backward pass is one tensor beside ``delta``.

    Written in place, since every temporary is as large as the weight in float32.
    """

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, delta: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
        share = torch.rand_like(gate).clamp_(_EDGE, 1 - _EDGE).logit_().add_(gate).sigmoid_()
        ctx.save_for_backward(share, delta)
        return _stretched(share).clamp_(0, 1).mul_(delta).add_(weight).to(weight.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        share, delta = ctx.saved_tensors
        to_delta = _stretched(share)
        inside = (to_delta > 0).logical_and_(to_delta < 1)
        to_gate = (1 - share).mul_(share).mul_(inside).mul_(delta).mul_(gradients[0]).mul_(_RIGHT - _LEFT)
        return None, to_delta.clamp_(0, 1).mul_(gradients[0]), to_gate


def _stretched(share: torch.Tensor) -> torch.Tensor:
    return (share * (_RIGHT - _LEFT)).add_(_LEFT)


def _clipped(share: torch.Tensor) -> torch.Tensor:
    return _stretched(share).clamp(0, 1)


def _added(weight: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    return (weight.float() + delta).to(weight.dtype)
