"""Whether the question's devices are those that a run will have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from peftselect.errors import InputError, UnsupportedError
from peftselect.training import ranks, sharding

if TYPE_CHECKING:
    from peftselect.problem import Problem


def check_devices(problem: Problem, alone: str = "") -> str | None:
    """A note where the question is about several devices; an error where they are not as it says.

    Each process that a launcher starts trains on one device; ``alone`` is what one process has to do.
    """
    machine, processes = problem.hardware, ranks.count()
    if processes > 1:
        if alone:
            raise UnsupportedError(f"{alone} is done by one process", "start it without a launcher first")
        if machine.devices != processes:
            raise InputError(f"--devices {machine.devices}, but {processes} processes", "leave out --devices")
        if shared := sharding.asked().words:
            return f"{processes} processes share each batch, and {shared}"
        if machine.sharding != "none":
            raise UnsupportedError(
                "these processes share batches, not weights",
                "leave out --sharding, or let accelerate's file ask for FSDP or DeepSpeed",
            )
        return f"{processes} processes share each batch"
    if machine.devices == 1:
        return None
    if machine.sharding != "none":
        raise InputError(
            f"run trains on one device, so it cannot share by {machine.sharding}", "leave out --devices and --sharding"
        )
    return f"trains on one device, with {machine.devices} times the accumulation in place of {machine.devices} devices"
