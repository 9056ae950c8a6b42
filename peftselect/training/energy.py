"""The energy that training takes (thesis 3.5), by codecarbon where it is installed (``peftselect[energy]``).

Nothing is sent or written by it: its offline tracker hands its sums over, and they go into the run's record.
"""

from __future__ import annotations

import contextlib
import logging
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from peftselect.training import ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

PACKAGE = "codecarbon"


class Meter(TrainerCallback):  # type: ignore[misc]
    """Kilowatt hours of training, validation included, over all sittings; without codecarbon it measures nothing.

    One process is metered by itself (a card's power is the whole card's); of several, the first meters the machine.
    """

    def __init__(self) -> None:
        self._earlier = 0.0
        self._latest: Any = None
        self._tracker: Any = None

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The block that is metered."""
        if find_spec(PACKAGE) is not None and ranks.is_first():
            self._start()
        try:
            yield
        finally:
            if self._tracker is not None:
                self._tracker.stop()

    def _start(self) -> None:
        from codecarbon import OfflineEmissionsTracker
        from codecarbon.output_methods.base_output import BaseOutput

        logging.getLogger(PACKAGE).setLevel(logging.CRITICAL)  # its own argument comes too late for its greetings
        meter = self

        class Sums(BaseOutput):  # type: ignore[misc, unused-ignore]
            def out(self, total: Any, delta: Any) -> None:
                meter._latest = total

        self._tracker = OfflineEmissionsTracker(
            country_iso_code="USA",  # it wants one; emissions are not asked for
            tracking_mode="process" if ranks.count() == 1 else "machine",
            output_methods=[],
            output_handlers=[Sums()],
            allow_multiple_runs=True,
            log_level="critical",
        )
        self._tracker.start()

    @property
    def kilowatt_hours(self) -> float:
        """What was metered so far."""
        return self._earlier + (float(self._latest.energy_consumed) if self._latest is not None else 0.0)

    def measured(self) -> dict[str, Any]:
        """``energy_kwh`` and ``energy_by``, how it was measured; nothing where nothing was."""
        if self._latest is None:
            return {}
        seen = self._latest
        parts = [f"CPU {seen.cpu_power:.3g} W ({seen.cpu_model})", f"RAM {seen.ram_power:.3g} W"]
        if seen.gpu_count:
            parts.append(f"GPU {seen.gpu_power:.3g} W ({seen.gpu_model})")
        # whether power was read or guessed from the load: only the tracker's own list says
        known = {item.description() for item in getattr(self._tracker, "_hardware", ()) if type(item).__name__ != "RAM"}
        parts += sorted(known)
        how = f"{PACKAGE} {seen.codecarbon_version} of the {seen.tracking_mode}: {', '.join(parts)}"
        return {"energy_kwh": round(self.kilowatt_hours, 9), "energy_by": how}

    def training_state(self, model: Any) -> dict[str, float]:
        """The energy so far."""
        if self._tracker is not None:
            self._tracker.flush()
        return {"kilowatt_hours": self.kilowatt_hours}

    def restore_training_state(self, model: Any, state: dict[str, float]) -> None:
        """Go on from there."""
        self._earlier = state["kilowatt_hours"]
