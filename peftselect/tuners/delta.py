"""Selective tuning as an adapter: a frozen base, and a change of its own weights beside it.

Which weights change, and when that is decided, is the configuration's ``kind``. The base is never written to, so that
an adapter is switched off, exchanged and merged like any other; weight decay pulls towards the base, and what is not
chosen is not moved by it. A sparse change is saved as its numbers and their places.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from peftselect.tuners.base import Tuner, TunerConfig
from peftselect.tuners.changes import Change, SparseChange
from peftselect.tuners.dense_changes import DenseChange, GatedChange, PrunedChange, TwoPassChange
from peftselect.tuners.overlay import Slot, lay, lift, slots_of
from peftselect.tuners.registry import register_tuner

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: dict[str, type[Change]] = {
    "sparse": SparseChange, "dense": DenseChange, "pruned": PrunedChange, "two_pass": TwoPassChange,
    "gated": GatedChange,
}  # fmt: skip


@dataclass
class DeltaConfig(TunerConfig):
    """``numbers`` is how many the parameters that may change have together; an adapter fits no other base."""

    type_name: ClassVar[str] = "PSEL_DELTA"

    target_modules: list[str] | str | None = field(
        default=DUMMY_TARGET_MODULES, metadata={"help": "none: no module is replaced"}
    )
    kind: str = field(default="sparse", metadata={"help": ", ".join(KINDS)})
    pattern: str | None = field(default=None, metadata={"help": "parameters that may change; all but the head's"})
    numbers: int = field(default=0, metadata={"help": "numbers of the parameters that may change"})
    kept: int = field(default=0, metadata={"help": "numbers that do change in the end"})
    mask: str = field(default="random", metadata={"help": "random, magnitude, gradient or fisher"})
    everywhere: bool = field(default=False, metadata={"help": "choose among all tensors at once, not in each"})
    search_steps: int = field(default=0, metadata={"help": "steps after which the places are chosen"})
    every: int = field(default=0, metadata={"help": "steps from one pruning to the next"})
    dropout: float = field(default=0.0, metadata={"help": "share of the change of matrices that is dropped"})
    penalty: float = field(default=0.0, metadata={"help": "weight of the expected number of open gates"})
    gate_start: float = field(default=5.0, metadata={"help": "logarithm of the odds of a gate at first"})


class Switch(nn.Module, BaseTunerLayer):  # type: ignore[misc]
    """Stands for all that is adapted, of which no module is replaced: peft asks its layers whether they are on."""

    adapter_layer_names = ("psel_delta_change",)

    def __init__(self, tuner: DeltaModel) -> None:
        super().__init__()
        self._tuner = [tuner]  # in a list: the tuner is no part of it
        self._disable_adapters = False
        self.merged_adapters: list[str] = []

    @property
    def psel_delta_change(self) -> nn.ModuleDict:
        """The changes by adapter."""
        found: nn.ModuleDict = self._tuner[0].psel_delta_change
        return found

    @property
    def active_adapters(self) -> list[str]:
        """The tuner's."""
        return list(self._tuner[0].active_adapters)


class DeltaModel(Tuner):
    """The tuner: reads of the base's parameters pass through :meth:`read`."""

    prefix = "psel_delta_"
    tuner_layer_cls = Switch
    shared_modules = ("psel_delta_change",)

    def make_shared(self, adapter: str, config: Any) -> Mapping[str, nn.Module]:
        """The change of one adapter. ValueError where it was made for a base of another size."""
        state = self.__dict__
        if "_slots" not in state:
            state.update(_slots=slots_of(self.model, config.modules_to_save or ()), _laid=set(), _under={})
            self.psel_delta_switch = Switch(self)
        slots = [slot for slot in self._slots if config.pattern is None or re.fullmatch(config.pattern, slot.name)]
        if (numbers := sum(slot.size for slot in slots)) != config.numbers:
            raise ValueError(f"the parameters that may change have {numbers:,} numbers, not {config.numbers:,}")
        # what was trained whole and cut down is loaded as the few numbers that are left of it
        kind = SparseChange if config.kept and config.inference_mode else KINDS[config.kind]
        change = kind(slots, config, next(self.model.parameters()).device)
        lay([slot for slot in slots if slot.number not in state["_laid"]], self.read)
        state["_laid"].update(slot.number for slot in slots)
        return {"change": change}

    def change(self, adapter: str) -> Any:
        """The change of an adapter."""
        return self.shared("change", adapter)

    @property
    def unsettled(self) -> bool:
        """Whether an active adapter has not chosen its places yet."""
        return any(self.change(name).unsettled for name in self.active_adapters if name in self.psel_delta_change)

    def advance(self, optimizer: Any = None) -> None:
        """An optimizer step was taken; where what is trained begins anew, ``optimizer`` forgets what it knows of it."""
        for adapter in self.active_adapters:
            change = self.change(adapter)
            if change.advance() and optimizer is not None:
                for parameter in change.parameters():
                    optimizer.state.pop(parameter, None)

    def penalise(self) -> None:
        """The optimizer is about to step: add what is not the loss's own to the gradients."""
        for adapter in self.active_adapters:
            self.change(adapter).penalise()

    def steps(self) -> int:
        """Optimizer steps that the active adapter has seen."""
        return int(self.change(self.active_adapters[0]).steps)

    def go_on_at(self, steps: int) -> None:
        """Go on as after so many."""
        for adapter in self.active_adapters:
            self.change(adapter).go_on_at(steps)

    def read(self, slot: Slot, weight: torch.Tensor) -> torch.Tensor:
        """The weight as the active adapters have it."""
        if self._under or self.psel_delta_switch.disable_adapters:
            return weight
        for adapter in self.active_adapters:
            if adapter in self.psel_delta_change and slot.number in self.change(adapter).slots:
                weight = self.change(adapter).changed(slot, weight)
        return weight

    def _enable_adapter_layers(self, enabled: bool = True) -> None:
        super()._enable_adapter_layers(enabled)
        self.psel_delta_switch._disable_adapters = not enabled

    @torch.no_grad()
    def merge_adapter(self, adapter_names: list[str] | None = None, safe_merge: bool = False) -> None:
        """Write the change into the base. ValueError for a weight that is no number, if asked to look."""
        active = self.active_adapters
        self.active_adapter: Any = adapter_names or active
        was_training = self.psel_delta_change.training
        self.psel_delta_change.eval()
        merged = {slot.number: self.read(slot, slot.parameter).clone() for slot in self._slots}
        self.psel_delta_change.train(was_training)
        self.active_adapter = active
        if safe_merge and not all(bool(torch.isfinite(item).all()) for item in merged.values()):
            raise ValueError("a merged weight would be no number: the adapter seems to be broken")
        self.__dict__["_under"] = {slot.number: slot.parameter.detach().clone() for slot in self._slots}
        self.psel_delta_switch.merged_adapters = list(adapter_names or self.active_adapters)
        for slot in self._slots:
            slot.parameter.copy_(merged[slot.number])

    @torch.no_grad()
    def unmerge_adapter(self) -> None:
        """Put the base's own weights back."""
        for slot in self._slots if self._under else ():
            slot.parameter.copy_(self._under[slot.number])
        self.__dict__["_under"] = {}
        self.psel_delta_switch.merged_adapters = []

    def _unload_and_optionally_merge(
        self,
        merge: bool = True,
        progressbar: bool = False,
        safe_merge: bool = False,
        adapter_names: list[str] | None = None,
    ) -> Any:
        if merge and not self._under:
            self.merge_adapter(adapter_names, safe_merge)
        elif not merge:
            self.unmerge_adapter()
        lift(self._slots)
        return super()._unload_and_optionally_merge(merge, progressbar, safe_merge, adapter_names)

    @classmethod
    def _get_adapter_state_dict(cls, model: Any, config: Any, adapter_name: str, *rest: Any, **named: Any) -> Any:
        found = super()._get_adapter_state_dict(model, config, adapter_name, *rest, **named)
        tuner, path = _tuner_of(model)
        saved = tuner.change(adapter_name).saved()
        if saved is None:
            return found
        inside = f"{path}psel_delta_change.{adapter_name}."
        left = {key: item for key, item in found.items() if not key.startswith(inside)}
        return {**left, **{inside + name: item for name, item in saved.items()}}

    @classmethod
    def _remap_adapter_state_dict_for_load(
        cls, model: Any, config: Any, adapter_name: str, state_dict: dict[str, torch.Tensor]
    ) -> Any:
        tuner, path = _tuner_of(model)
        inside = f"{path}psel_delta_change."
        own = {key.removeprefix(inside): item for key, item in state_dict.items() if key.startswith(inside)}
        change = tuner.change(adapter_name)
        own = change.load_saved(own) if "index" in own else own
        rest = {key: item for key, item in state_dict.items() if not key.startswith(inside)}
        state_dict = {**rest, **{inside + name: item for name, item in own.items()}}
        return super()._remap_adapter_state_dict_for_load(model, config, adapter_name, state_dict)


def _tuner_of(model: Any) -> tuple[DeltaModel, str]:
    """The tuner inside a model, and what stands before the names of its tensors."""
    for name, module in model.named_modules():
        if isinstance(module, DeltaModel):
            return module, f"{name}." if name else ""
    raise ValueError("the model has no tuner of changes")


register_tuner(DeltaConfig, DeltaModel)
