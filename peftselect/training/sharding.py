"""Which way of sharing weights and optimizer accelerate's own file asks for: none, FSDP or DeepSpeed.

What is saved is gathered first, so that files are those of a run of one process. Loading and the base model's score
need the base whole in each process.
"""

from __future__ import annotations

from peftselect.training import fsdp, zero, zero_settings
from peftselect.training.sharing import Sharing

_NOTHING, _FSDP, _ZERO = Sharing(), fsdp.Fsdp(), zero.Zero()


def asked() -> Sharing:
    """How the processes of this run share, whether or not they do so yet."""
    if zero_settings.is_asked():
        return _ZERO
    return _FSDP if fsdp.is_asked() else _NOTHING
