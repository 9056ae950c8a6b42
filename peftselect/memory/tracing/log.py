"""The log of a traced step: which storage was born when, how large, as what, and when it died."""

from __future__ import annotations

import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

if TYPE_CHECKING:
    from collections.abc import Iterable

    from peftselect.memory.allocator import Event


class AllocationLog:
    """Births and deaths of storages in order, with a kind for each (weights, adapter, activations, ...).

    Sizes are bytes as asked for (the allocator rounds them). Kinds are given at birth from :attr:`phase` and may be
    corrected later with :meth:`relabel`, when it is known what became a gradient or an optimizer state.
    """

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.phase = "weights"
        self.current_bytes = 0
        self.peak_bytes = 0
        self._count = 0
        self._live: dict[int, tuple[int, int]] = {}
        self._kinds: dict[int, str] = {}
        self._sizes: dict[int, int] = {}

    def born(self, storage: torch.UntypedStorage, kind: str | None = None) -> None:
        """Note a storage the first time it is seen; its death is noted when Python drops it."""
        key = id(storage)
        nbytes = storage.nbytes()
        if key in self._live or nbytes == 0:
            return
        self._count += 1
        serial = self._count
        self._live[key] = (serial, nbytes)
        self._kinds[serial] = kind or self.phase
        self._sizes[serial] = nbytes
        self.current_bytes += nbytes
        self.peak_bytes = max(self.peak_bytes, self.current_bytes)
        self.events.append(("alloc", serial, nbytes))
        weakref.finalize(storage, self._died, key, serial, nbytes).atexit = False

    def _died(self, key: int, serial: int, nbytes: int) -> None:
        if self._live.get(key, (None,))[0] == serial:
            del self._live[key]
            self.current_bytes -= nbytes
            self.events.append(("free", serial, nbytes))

    def temporary(self, nbytes: int) -> None:
        """A workspace inside one kernel: born and gone at once."""
        self._count += 1
        self._kinds[self._count] = self.phase
        self._sizes[self._count] = nbytes
        self.events += [("alloc", self._count, nbytes), ("free", self._count, nbytes)]
        self.peak_bytes = max(self.peak_bytes, self.current_bytes + nbytes)

    def mark(self, label: str) -> None:
        """Put a named mark into the log."""
        self.events.append(("mark", label, 0))

    def empty_cache(self) -> None:
        """Note that the training loop emptied the allocator's cache here."""
        self.events.append(("empty_cache", "", 0))

    def relabel(self, tensors: Iterable[Any], kind: str) -> None:
        """Correct the kind of the living storages under ``tensors``."""
        for tensor in tensors:
            if isinstance(tensor, torch.Tensor):
                entry = self._live.get(id(tensor.untyped_storage()))
                if entry is not None:
                    self._kinds[entry[0]] = kind

    def kind(self, serial: object) -> str:
        """Kind of the storage with this number in :attr:`events`."""
        return self._kinds[serial]  # type: ignore[index]

    def serial(self, tensor: torch.Tensor) -> int:
        """Number of the storage under a tensor, unique in this log; 0 if the log does not know it."""
        return self._live.get(id(tensor.untyped_storage()), (0, 0))[0]

    def breakdown_at_peak(self) -> dict[str, int]:
        """Bytes held by each kind at the moment of the highest total."""
        current = peak = 0
        peak_index = 0
        for index, (what, _, nbytes) in enumerate(self.events):
            current += nbytes if what == "alloc" else -nbytes if what == "free" else 0
            if current > peak:
                peak, peak_index = current, index
        held: Counter[str] = Counter()
        for what, serial, nbytes in self.events[: peak_index + 1]:
            if what in ("alloc", "free"):
                held[self._kinds[serial]] += nbytes if what == "alloc" else -nbytes  # type: ignore[index]
        return {kind: nbytes for kind, nbytes in held.items() if nbytes}


class StorageTracker(TorchDispatchMode):
    """Reports every storage that an operation returns on the counted device to the log.

    ``wide`` is the width of the vocabulary: what is that wide belongs to the logits and the loss.
    """

    def __init__(self, log: AllocationLog, device_type: str, wide: int = 0) -> None:
        super().__init__()
        self.log, self.device_type, self.wide = log, device_type, wide

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operation and note what it made."""
        out = func(*args, **(kwargs or {}))
        for item in out if isinstance(out, list | tuple) else (out,):
            for tensor in item if isinstance(item, list | tuple) else (item,):
                self.note(tensor)
        return out

    def note(self, tensor: Any) -> None:
        """Report one tensor's storage."""
        if not isinstance(tensor, torch.Tensor) or tensor.device.type != self.device_type:
            return
        if tensor.layout is torch.sparse_coo:
            self.note(tensor._indices())
            self.note(tensor._values())
            return
        wide = self.wide and tensor.dim() and tensor.shape[-1] == self.wide and self.log.phase == "activations"
        self.log.born(tensor.untyped_storage(), "logits_and_loss" if wide else None)
