"""What may change of a base's weights: a few numbers at chosen places, or all of them, cut down to the few that matter.

Each kind is a module with parameters that are trained, and answers with a changed weight for a slot
(:mod:`peftselect.tuners.overlay`). Numbers of all slots are laid end to end; places are indices into that line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from peftselect.tuners.overlay import Slot

#: places fit in 32 bits where there are no more numbers than this
_NARROW = 2**31 - 1


class Change(nn.Module):
    """The change of one adapter. ``steps`` counts optimizer steps, by which some kinds go from one phase to another."""

    def __init__(self, slots: Sequence[Slot], config: Any, device: torch.device) -> None:
        super().__init__()
        self.slots = {slot.number: slot for slot in slots}
        self.numbers = sum(slot.size for slot in slots)
        self.starts = dict(zip(self.slots, running_sums(slot.size for slot in slots), strict=False))
        self.config = config
        self.device = device
        self.steps = 0

    def changed(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """``weight`` as it is under this change, in its own type."""
        raise NotImplementedError

    def advance(self) -> bool:
        """An optimizer step was taken; whether what is trained was set anew, so that its past means nothing."""
        self.steps += 1
        return False

    def penalise(self) -> None:
        """Add to the gradients what is not the loss's own, before the optimizer steps."""

    def saved(self) -> dict[str, torch.Tensor] | None:
        """The tensors of the adapter's file where these are not the module's own."""
        return None

    def load_saved(self, saved: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The module's own tensors, from those of a file; the places in it are final."""
        self.go_on_at(max(self.steps, self.config.search_steps))
        return saved

    @property
    def unsettled(self) -> bool:
        """Whether the places are not chosen yet, so that what would be saved now says little."""
        return self.steps < self.config.search_steps and not self.config.inference_mode

    def go_on_at(self, steps: int) -> None:
        """Go on as after so many steps."""
        self.steps = steps

    def _places(self, kept: int) -> torch.Tensor:
        kind = torch.int32 if self.numbers <= _NARROW else torch.int64
        return torch.zeros(kept, dtype=kind, device=self.device)


def running_sums(sizes: Iterable[int]) -> list[int]:
    """0, and the sum of the first sizes, of the first two, and so on."""
    found = [0]
    for size in sizes:
        found.append(found[-1] + size)
    return found


class Bounds:
    """Which part of sorted places lies in which slot. Looked up again only when the places have changed.

    The places that were seen are held: the identity of a tensor that is gone is soon another's.
    """

    def __init__(self, starts: Sequence[int]) -> None:
        self._starts = list(starts)
        self._seen: tuple[torch.Tensor, int] | None = None
        self._bounds: list[int] = []

    def tell(self, places: torch.Tensor, bounds: list[int]) -> None:
        """Places whose parts are known."""
        self._seen, self._bounds = (places, places._version), bounds

    def of(self, places: torch.Tensor, position: int) -> tuple[int, int]:
        """(first, past the last) of the places in the slot at ``position``."""
        if self._seen is None or self._seen[0] is not places or self._seen[1] != places._version:
            starts = torch.tensor(self._starts, device=places.device)
            self.tell(places, torch.searchsorted(places.long(), starts).tolist())
        return self._bounds[position], self._bounds[position + 1]


class SparseChange(Change):
    """``kept`` trained numbers and their places. With a score the places are chosen by gradients, after some steps.

    Until then the base answers as it is, and every backward pass adds to ``score``: the gradients themselves
    ("gradient") or their squares ("fisher").
    """

    index: torch.Tensor
    score: torch.Tensor | None

    def __init__(self, slots: Sequence[Slot], config: Any, device: torch.device) -> None:
        super().__init__(slots, config, device)
        self.values = nn.Parameter(torch.zeros(config.kept, device=device))
        places = self._places(config.kept)
        edges = running_sums(slot.size for slot in slots)
        shares = [config.kept * edge // self.numbers for edge in edges]
        self._bounds = Bounds(edges)
        self._order = {number: position for position, number in enumerate(self.slots)}
        if not (places.is_meta or config.inference_mode):
            for slot, start, low, high in zip(slots, edges, shares, shares[1:], strict=False):
                # one tensor at a time, each the same share of its numbers
                rank = slot.parameter.detach().flatten().float().abs() if config.mask == "magnitude" else None
                rank = torch.rand(slot.size, device=device) if rank is None else rank
                places[low:high] = (rank.topk(high - low).indices.sort().values + start).to(places.dtype)
        self.register_buffer("index", places)
        self._bounds.tell(self.index, shares)
        searching = config.mask in ("gradient", "fisher") and config.search_steps and not config.inference_mode
        self.register_buffer("score", torch.zeros(self.numbers, device=device) if searching else None, persistent=False)

    @property
    def searching(self) -> bool:
        """Whether the places are still sought."""
        return self.score is not None and self.unsettled

    def go_on_at(self, steps: int) -> None:
        """Nothing is scored any more once the places are chosen."""
        super().go_on_at(steps)
        if not self.unsettled:
            self.score = None

    def changed(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """The weight with the numbers of this slot added; gradients reach these alone."""
        if torch.is_grad_enabled() and self.values.requires_grad:
            answer: torch.Tensor = _Shift.apply(weight, self.values, self, slot)  # type: ignore[no-untyped-call]
            return answer
        return self.shifted(slot, weight)

    def shifted(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """The same without a graph."""
        low, high = self._bounds.of(self.index, self._order[slot.number])
        if low == high or self.searching:
            return weight.view_as(weight)
        return moved(weight, self._local(slot, low, high), self.values[low:high])

    def collect(self, slot: Slot, gradient: torch.Tensor) -> None:
        """Take what is ours of a weight's gradient.

        Written into ``values.grad`` at once: autograd would make a gradient as long as all values for every slot.
        """
        flat = gradient.detach().flatten()
        low, high = self._bounds.of(self.index, self._order[slot.number])
        if self.values.grad is None:
            self.values.grad = torch.zeros_like(self.values)
        if high > low:
            self.values.grad[low:high] += flat[self._local(slot, low, high)].float()
        if self.searching and self.score is not None:
            part = self.score[self.starts[slot.number] : self.starts[slot.number] + slot.size]
            if flat.dtype == torch.float16:  # under loss scaling some overflow, and their step is left out
                flat = flat.nan_to_num(0.0, 0.0, 0.0)
            if self.config.mask == "gradient":
                part.add_(flat)
            else:
                part.addcmul_(flat, flat)

    def advance(self) -> bool:
        """Choose the places when all that is wanted has been seen."""
        searched = self.searching
        super().advance()
        if not searched or self.searching:
            return False
        self._choose()
        self.score = None
        return True

    @torch.no_grad()
    def _choose(self) -> None:
        assert self.score is not None
        rank = self.score.abs()
        if self.config.everywhere:
            chosen = rank.cpu().topk(len(self.index)).indices.sort().values.to(self.index.device)
        else:
            edges = running_sums(slot.size for slot in self.slots.values())
            shares = [len(self.index) * edge // self.numbers for edge in edges]
            parts = zip(edges, edges[1:], shares, shares[1:], strict=False)
            chosen = torch.cat([rank[a:b].topk(high - low).indices.sort().values + a for a, b, low, high in parts])
        self.index.copy_(chosen.to(self.index.dtype))
        self.values.zero_()

    def _local(self, slot: Slot, low: int, high: int) -> torch.Tensor:
        return self.index[low:high].long() - self.starts[slot.number]


class _Shift(torch.autograd.Function):
    """A weight moved at few places; of its gradient nothing is kept but what is there."""

    @staticmethod
    def forward(ctx: Any, weight: torch.Tensor, values: torch.Tensor, change: SparseChange, slot: Slot) -> torch.Tensor:
        ctx.change, ctx.slot = change, slot
        return change.shifted(slot, weight)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> Any:
        ctx.change.collect(ctx.slot, gradients[0])
        return None, None, None, None


def moved(weight: torch.Tensor, where: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """``weight`` with ``by`` added at flat indices: summed in float32, answered in the weight's type."""
    flat = weight.flatten()
    return flat.index_copy(0, where, (flat[where].float() + by).to(weight.dtype)).view_as(weight)
