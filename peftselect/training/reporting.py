"""Where training tells its losses and scores beside the record: what the Trainer's own ``report_to`` knows."""

from __future__ import annotations

import shutil
from importlib.util import find_spec
from typing import TYPE_CHECKING

from peftselect.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

#: the Trainer's name of each: packages, one of which it needs
PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",), "mlflow": ("mlflow",)}
#: folder in which TensorBoard's files lie, in the work folder and in the output
LOGS = "runs"


def check_reports(names: Iterable[str]) -> None:
    """UnknownNameError for a name that nobody knows, InputError where its package is missing."""
    for name in names:
        if name not in PACKAGES:
            raise UnknownNameError("report", name, sorted(PACKAGES))
        if not any(find_spec(package) for package in PACKAGES[name]):
            package = PACKAGES[name][0]
            raise InputError(f"--report-to {name} needs the package {package}", f"pip install {package}")


def keep_logs(work: Path, draft: Path) -> None:
    """Put TensorBoard's files into the output."""
    if (work / LOGS).is_dir():
        shutil.copytree(work / LOGS, draft / LOGS)
