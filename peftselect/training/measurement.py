"""What a run really took: peak memory, time, tokens, parameters, bytes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import psutil
import torch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from peftselect.training.evaluation import Evaluated

ADAPTER_FILES = ("adapter_model*.safetensors", "model*.safetensors")
#: bytes of a trained parameter in its file
FILE_WIDTH = 4


class PeakMemory:
    """Peak memory of training, by the measure that the device has.

    On a CUDA device the allocator's peak over the training steps, which is what the estimate predicts. On a CPU there
    is no allocator to ask: by how much the process's peak in RAM has grown, tokenised data and evaluation included, is
    reported under a name of its own and compared with nothing.
    """

    def __init__(self, cuda: bool) -> None:
        self.cuda = cuda
        self.allocated = 0
        self.reserved = 0
        self._peak_before = peak_resident_bytes()

    def begin_step(self) -> None:
        """Forget earlier peaks."""
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()

    def end_step(self) -> None:
        """Take the step's peak into account."""
        if self.cuda:
            self.allocated = max(self.allocated, torch.cuda.max_memory_allocated())
            self.reserved = max(self.reserved, torch.cuda.max_memory_reserved())

    @property
    def in_use(self) -> int:
        """Bytes that a bar shows: the allocator's peak on CUDA, what the process holds in RAM now on a CPU."""
        return self.allocated if self.cuda else int(psutil.Process().memory_info().rss)

    def measured(self) -> dict[str, int]:
        """``peak_memory_bytes`` and ``peak_reserved_bytes`` (CUDA), or ``peak_rss_growth_bytes`` (CPU)."""
        if self.cuda:
            return {"peak_memory_bytes": self.allocated, "peak_reserved_bytes": self.reserved}
        growth = peak_resident_bytes() - self._peak_before
        return {"peak_rss_growth_bytes": growth} if growth > 0 else {}


def peak_resident_bytes() -> int:
    """The most memory that this process has had in RAM so far; 0 where the system does not say (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def afterwards(baseline: Evaluated, tuned: Evaluated, folder: Path, measured: Mapping[str, Any]) -> dict[str, Any]:
    """What deployment costs (thesis 3.6): seconds to predict a row and from a prompt to its first token,
    before and after, the file, what it spares.

    ``compression_ratio`` is the whole model over the file, as parameters at the width of the file's (float32).
    """
    file_bytes = folder_bytes(folder, ADAPTER_FILES)
    rows = max(len(tuned.predictions), 1)
    first = {"first_token_seconds": tuned.first_token_seconds, "base_first_token_seconds": baseline.first_token_seconds}
    return {
        "adapter_bytes": file_bytes,
        "compression_ratio": round(measured["total_parameters"] * FILE_WIDTH / max(file_bytes, 1), 2),
        "inference_seconds_per_row": round(tuned.seconds / rows, 6),
        "base_inference_seconds_per_row": round(baseline.seconds / rows, 6),
        **{name: round(value, 6) for name, value in first.items() if value is not None},
    }


def seconds_of(work: Callable[[], Any]) -> float:
    """Seconds that ``work`` takes, on a card until it is done there."""
    started = time.perf_counter()
    work()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - started


def folder_bytes(folder: Path, patterns: tuple[str, ...]) -> int:
    """Bytes of the files in ``folder`` that match a pattern."""
    return sum(file.stat().st_size for pattern in patterns for file in folder.glob(pattern))


def device_name(device: Any) -> str:
    """The device as records name it."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device.type)
