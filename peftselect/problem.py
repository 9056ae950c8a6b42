"""The question: which task, which base model, which data, which hardware, and what matters."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from peftselect.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from peftselect.shape import ModelShape
    from peftselect.task import Task

GIB = 1024**3
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
Preference = Literal["quality", "memory", "speed", "size"]
Sharding = Literal["none", "zero1", "zero2", "zero3"]
MUSTS: tuple[str, ...] = ("merge", "quantized-base", "multi-adapter")
TRAITS: tuple[str, ...] = ("faithful", "reasoning", "new-knowledge", "simple", "cross-project")


@dataclass(frozen=True)
class BaseModel:
    """A base model by reference and configuration; no weights are touched.

    ``reference`` is what the user wrote; ``load_from`` is what ``from_pretrained`` is given (a folder or a hub id).
    ``config`` is the parsed ``config.json`` (or the catalogue's shape facts in the same keys). ``lacks_pooler`` is True
    for checkpoints of masked language models that were published without one: a head that reads it gets a new one,
    which must then be trained and saved with the head.
    """

    name: str
    reference: str
    load_from: str
    source: Literal["catalogue", "folder", "hub"]
    config: Mapping[str, Any]
    folder: Path | None = None
    licence: str = ""
    lacks_pooler: bool = False

    @property
    def model_type(self) -> str:
        """transformers' ``model_type``, such as ``"t5"``."""
        return str(self.config["model_type"])


@dataclass(frozen=True)
class DataProfile:
    """What is known of the training data. Lengths are tokens; None where nobody said."""

    num_examples: int | None = None
    source_tokens_p50: int | None = None
    source_tokens_p99: int | None = None
    source_tokens_max: int | None = None
    target_tokens_p50: int | None = None
    target_tokens_max: int | None = None
    num_labels: int | None = None
    #: "given", "read from FILE" or "assumed"
    origin: str = "assumed"


@dataclass(frozen=True)
class Hardware:
    """The training devices. ``vram_bytes`` is one device's memory; None means unlimited."""

    vram_bytes: int | None = None
    devices: int = 1
    sharding: Sharding = "none"
    name: str = ""
    #: "given", "read from the card", "no budget given"
    origin: str = "no budget given"


@dataclass(frozen=True)
class Priorities:
    """What the user wants most, must have, and what the job is like (thesis 5.3)."""

    prefer: Preference = "quality"
    must: frozenset[str] = frozenset()
    max_seconds: float | None = None
    traits: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Problem:
    """One question to the selector.

    ``batch_size`` is the effective one (micro-batch x accumulation x devices); ``max_length`` and
    ``max_target_length`` are tokens of the longest input and output that training will see (the second is 0 where
    the head generates nothing). ``quantization``/``precision`` are forced when not None.
    """

    task: Task
    model: BaseModel
    shape: ModelShape
    data: DataProfile = field(default_factory=DataProfile)
    hardware: Hardware = field(default_factory=Hardware)
    priorities: Priorities = field(default_factory=Priorities)
    batch_size: int = 8
    max_length: int = 512
    max_target_length: int = 0
    precision: str | None = None
    quantization: str | None = None


def parse_duration(text: str | float, option: str = "--max-time") -> float:
    """Seconds of ``"2h"``, ``"1h30m"``, ``"90m"``, ``"45s"``, ``"1.5h"`` or a plain number of seconds.

    InputError names the ``option``.
    """
    if isinstance(text, int | float):
        seconds = float(text)
    else:
        compact = text.strip().lower().replace(" ", "")
        parts = re.findall(r"(\d+(?:\.\d+)?)([smhd])", compact)
        if parts and "".join(number + unit for number, unit in parts) == compact:
            seconds = sum(float(number) * _UNITS[unit] for number, unit in parts)
        else:
            try:
                seconds = float(compact)
            except ValueError:
                seconds = math.nan
    if not (math.isfinite(seconds) and seconds > 0):
        raise InputError(f"{option} {text!s} is not a length of time", "write 45m, 2h, 1h30m or a number of seconds")
    return seconds
