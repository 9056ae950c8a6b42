"""Where shipped data and the user's own data live."""

from __future__ import annotations

import importlib.resources
import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

HOME_VARIABLE = "PEFTSELECT_HOME"


def shipped(package: str, *parts: str) -> Traversable:
    """A file or folder that ships inside ``peftselect.<package>`` (``rules``, ``benchmarks``, ``example``)."""
    return importlib.resources.files(f"peftselect.{package}").joinpath(*parts)


def user_data_folder() -> Path:
    """The user's own folder for records and settings: ``$PEFTSELECT_HOME``, else the platform's data folder."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser()
    from platformdirs import user_data_path

    return user_data_path("peftselect", appauthor=False)


def user_cache_folder() -> Path:
    """The user's cache folder: ``$PEFTSELECT_HOME/cache``, else the platform's."""
    if home := os.environ.get(HOME_VARIABLE):
        return Path(home).expanduser() / "cache"
    from platformdirs import user_cache_path

    return user_cache_path("peftselect", appauthor=False)
