"""The settings of the predictor: how far methods, tasks and structure are believed to differ, and how wide it is."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING

from peftselect.errors import DataError
from peftselect.resources import shipped, user_data_folder

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable
    from pathlib import Path

SCHEMA = 2
FILE = "predictor.json"


@dataclass(frozen=True)
class Settings:
    """Variances of a Gaussian process over methods and situations, in units in which the targets' variance is 9.

    ``rank_share`` of the target is a method's place in its comparison, the rest its distance in points.
    ``method``: what a method is worth everywhere; ``task``, ``regime``, ``source``, ``kind``: what it is worth beyond
    that on a task, in a data regime, in one source of records, with one type of model on a task. ``structure`` and
    ``structure_family``: what methods of like structure share, everywhere and within a family of tasks. ``noise``: of
    one comparison. ``widths``: by level in percent, half the width of an interval in standard deviations.
    ``rules_weight``: what a point of the rules counts where records leave nothing open of what a method is worth,
    ``rules_open``: what it counts on top of that in proportion to how much they leave open. ``caution``: standard
    deviations of doubt that the selector takes off what is expected, so that of two methods which look alike the better
    known goes first.
    """

    rank_share: float = 0.5
    method: float = 4.0
    task: float = 1.5
    regime: float = 0.5
    source: float = 0.0
    kind: float = 0.25
    structure: float = 0.3
    structure_family: float = 0.1
    noise: float = 5.0
    width_50: float = 0.67
    width_80: float = 1.28
    width_95: float = 1.96
    rules_weight: float = 0.0
    rules_open: float = 1.0
    caution: float = 0.5

    def width(self, level: int) -> float:
        """Half the width of the interval of a level (50, 80 or 95) in standard deviations."""
        return {50: self.width_50, 80: self.width_80, 95: self.width_95}[level]


def save(settings: Settings, file: Path) -> None:
    """Write settings as JSON."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"schema": SCHEMA, **asdict(settings)}, indent=1) + "\n", encoding="utf-8")


def user_file() -> Path:
    """Where `peftselect predictor fit` leaves what it chose."""
    return user_data_folder() / FILE


def load() -> Settings:
    """The user's fitted settings where there are some, else the shipped ones."""
    own = user_file()
    return read(own) if own.is_file() else read(shipped("benchmarks", "results", FILE))


def read(file: Traversable | Path) -> Settings:
    """Settings from a JSON file; DataError says what is wrong with it."""
    hint = "run `peftselect predictor fit`, or delete the file"
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{file}: not the predictor's settings ({error})", hint) from error
    if not isinstance(document, dict) or document.get("schema") != SCHEMA:
        raise DataError(f"{file}: not the predictor's settings of schema {SCHEMA}", hint)
    values = {}
    for item in fields(Settings):
        value = document.get(item.name)
        if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
            raise DataError(f"{file}: {item.name} is not a number of 0 or more", hint)
        values[item.name] = float(value)
    return Settings(**values)
