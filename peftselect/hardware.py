"""The training device: read from the card without loading a framework, or taken from what the user says."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import get_args

from peftselect.errors import InputError
from peftselect.problem import GIB, Hardware, Sharding

DEVICES: tuple[str, ...] = ("auto", "cpu")
SHARDINGS: tuple[str, ...] = get_args(Sharding)
_QUERY = ("--query-gpu=name,memory.total", "--format=csv,noheader,nounits")


def read_card() -> tuple[str, int] | None:
    """Name and memory (bytes) of the first card, or None where there is none.

    torch answers when it is loaded already; otherwise ``nvidia-smi`` does, in a fraction of the time torch's import
    would take.
    """
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return str(properties.name), int(properties.total_memory)
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        answer = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=20, check=True).stdout
        name, _, mebibytes = answer.splitlines()[0].rpartition(",")
        return name.strip(), int(float(mebibytes)) * 1024**2
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None


def hardware(vram_gib: float | None = None, device: str = "auto", devices: int = 1, sharding: str = "none") -> Hardware:
    """The devices of a question: ``vram_gib`` when it is given, else the card's memory, else no budget."""
    if device not in DEVICES:
        raise InputError(f"device {device!r} is not known", f"one of {', '.join(DEVICES)}")
    if sharding not in SHARDINGS:
        raise InputError(f"sharding {sharding!r} is not known", f"one of {', '.join(SHARDINGS)}")
    if devices < 1:
        raise InputError(f"--devices {devices} is not a number of devices", "give 1 or more")
    if sharding != "none" and devices == 1:
        raise InputError(f"sharding {sharding} needs several devices", "add --devices 2 or more")
    mode: Sharding = sharding  # type: ignore[assignment]  # checked against SHARDINGS above
    if vram_gib is not None:
        if not 0 < vram_gib < 1e6:  # also refuses nan and inf
            raise InputError(
                f"--vram {vram_gib:g} is not an amount of memory", "give GiB above 0, for example --vram 8"
            )
        return Hardware(round(vram_gib * GIB), devices, mode, origin="given")
    if device == "cpu":
        return Hardware(None, devices, mode, name="cpu", origin="the CPU: no budget")
    if card := read_card():
        return Hardware(card[1], devices, mode, name=card[0], origin="read from the card")
    return Hardware(None, devices, mode, origin="no budget given")
