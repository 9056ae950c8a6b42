"""Several adapters at hand at once: those that can share a base model do, and are switched for each question."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, UnknownNameError
from peftselect.serving.loaded import Loaded, load

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.serving.saved import Saved
    from peftselect.task import Row


@dataclass(frozen=True)
class _Place:
    """A loaded adapter, and its name in the model that it shares (None: it has a model of its own)."""

    loaded: Loaded
    within: str | None


class Adapters:
    """Adapters by name. One question is answered at a time: switching changes the model for all."""

    def __init__(self, saved: Sequence[Saved], *, device: str | None = None) -> None:
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        shared: dict[Any, _Place] = {}
        for item in saved:
            if item.name in self._places:
                raise InputError(f"two adapters are called {item.name}", "give folders with different names")
            host = shared.get(key := _sharing(item))
            place = _beside(host, item) if host is not None else None
            if place is None:
                place = _Place(load(item, device=device, name=item.name), None if item.whole_model else item.name)
                shared.setdefault(key, place)
            self._places[item.name] = place

    @property
    def names(self) -> list[str]:
        """In the order they were given."""
        return list(self._places)

    @property
    def models(self) -> int:
        """Base models in memory."""
        return len({id(place.loaded.model) for place in self._places.values()})

    def find(self, name: str | None) -> Loaded:
        """An adapter; without a name the only one, or the first. UnknownNameError lists the others."""
        if name is not None and name not in self._places:
            raise UnknownNameError("adapter", name, self.names)
        return self._places[name or self.names[0]].loaded

    def predict(self, name: str | None, rows: Sequence[Row]) -> list[Any]:
        """One prediction a row by the adapter ``name``."""
        place = self._places[name or self.names[0]]
        with self._lock:
            if place.within is not None:
                place.loaded.model.set_adapter(place.within)
            return place.loaded.predict(rows)


def _sharing(saved: Saved) -> Any:
    """Adapters with the same key may share a base model: same weights, same head, same tuner.

    What changes the base in place (trained biases), and tuners that peft does not know to switch, stay alone.
    """
    if saved.whole_model:
        return saved.folder
    config = json.loads((saved.folder / "adapter_config.json").read_text(encoding="utf-8"))
    if config.get("bias", "none") != "none" or "saved_by" in config:
        return saved.folder
    return (saved.model, saved.task, saved.labels, saved.precision, saved.quantization, config.get("peft_type"))


def _beside(host: _Place, saved: Saved) -> _Place | None:
    """The adapter on the model that another has already; None where peft has no room for it."""
    model = host.loaded.model
    try:
        model.load_adapter(str(saved.folder), adapter_name=saved.name)
    except (ValueError, NotImplementedError, KeyError):
        if saved.name in model.peft_config:
            model.delete_adapter(saved.name)
        return None
    model.eval()
    return _Place(_as_trained(host.loaded, saved), saved.name)


def _as_trained(host: Loaded, saved: Saved) -> Loaded:
    """The adapter's own way of encoding over the model of another."""
    context = replace(
        host.context,
        max_length=saved.max_length or host.context.max_length,
        max_target_length=saved.max_target_length or host.context.max_target_length,
        template=saved.template,
        prepended_positions=saved.prepended_positions,
    )
    return replace(host, saved=saved, context=context)
