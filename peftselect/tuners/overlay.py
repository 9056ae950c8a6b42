"""Weights that are read as the base's own and a change to them, while no module is replaced and no tensor is renamed.

A module's class is exchanged for a subclass whose ``weight`` is a property: whoever reads it, a layer's own forward, a
model that multiplies by it without calling the layer, a tied matrix, gets the changed weight. The parameter itself
stays where it was, under its name, and is never written to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

#: what a slot's parameter is read as
Read = Callable[["Slot", torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Slot:
    """One parameter of the base by its name, and the modules (several, if tied) that hold it."""

    number: int
    name: str
    places: tuple[tuple[nn.Module, str], ...]

    @property
    def parameter(self) -> nn.Parameter:
        """The tensor as it is now."""
        module, name = self.places[0]
        held = module._parameters[name]
        assert held is not None
        return held

    @property
    def size(self) -> int:
        """Numbers in it."""
        return self.parameter.numel()

    @property
    def is_table(self) -> bool:
        """Whether rows of it are looked up."""
        return any(isinstance(module, nn.Embedding) for module, _ in self.places)


def slots_of(model: nn.Module, left_out: Iterable[str]) -> list[Slot]:
    """Every parameter of ``model``, each once, but for those inside modules that ``left_out`` names (task heads)."""
    heads = set(left_out)
    found: dict[int, tuple[str, list[tuple[nn.Module, str]]]] = {}
    for path, module in model.named_modules():
        if heads.intersection(path.split(".")):
            continue
        for name, parameter in module._parameters.items():
            if parameter is not None:
                full = f"{path}.{name}" if path else name
                found.setdefault(id(parameter), (full, []))[1].append((module, name))
    return [Slot(number, name, tuple(places)) for number, (name, places) in enumerate(found.values())]


def lay(slots: Iterable[Slot], read: Read) -> None:
    """Have the parameters of ``slots`` be read through ``read`` from now on."""
    by_module: dict[int, tuple[nn.Module, dict[str, Slot]]] = {}
    for slot in slots:
        for module, name in slot.places:
            by_module.setdefault(id(module), (module, {}))[1][name] = slot
    for module, names in by_module.values():
        below: Any = type(module)
        body = {name: property(_reader(slot, name, read)) for name, slot in names.items()}
        module.__class__ = type(below.__name__, (below,), {**body, "__module__": below.__module__, "_overlaid": below})


def lift(slots: Iterable[Slot]) -> None:
    """Have them be read as they are again."""
    for slot in slots:
        for module, _ in slot.places:
            if (below := getattr(type(module), "_overlaid", None)) is not None:
                module.__class__ = below


def _reader(slot: Slot, name: str, read: Read) -> Callable[[nn.Module], torch.Tensor]:
    def reader(module: nn.Module) -> torch.Tensor:
        held = module._parameters[name]
        assert held is not None
        try:
            return read(slot, held)
        except AttributeError as error:  # torch would take it for an attribute that is not there
            raise RuntimeError(f"{slot.name} cannot be read: {error}") from error

    return reader
