"""How a run says what it is doing, without knowing who looks on."""

from __future__ import annotations

import contextlib
import logging
import warnings
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


NOISY = ("transformers", "datasets", "peft", "accelerate", "bitsandbytes", "torch", "DeepSpeed")


class Observer(Protocol):
    """Told what a run is doing. The command line's shows lines and a bar."""

    def stage(self, text: str) -> None:
        """A new part of the run begins."""

    def progress(self, done: int, total: int, text: str = "") -> None:
        """``done`` of ``total`` steps of the current part are behind us."""


class Silent:
    """An observer that says nothing."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def progress(self, done: int, total: int, text: str = "") -> None:
        """Nothing."""


def hush() -> None:
    """Let these libraries report errors only; some have something to say as soon as they are imported."""
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.ERROR)


def hush_for_good() -> None:
    """The same for a whole process of ours, whatever is imported. accelerate imports DeepSpeed wherever it is
    installed, which sets its logger's level anew and warns on standard output, where programs read our answers."""
    hush()
    logging.getLogger("DeepSpeed").addFilter(_is_error)


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep the libraries' notices and bars off the terminal; errors still show."""
    import datasets
    import transformers

    noisy = [logging.getLogger(name) for name in NOISY]
    levels = [logger.level for logger in noisy]
    bars = transformers.utils.logging.is_progress_bar_enabled(), datasets.is_progress_bar_enabled()
    hush()
    transformers.utils.logging.disable_progress_bar()
    datasets.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(noisy, levels, strict=True):
            logger.setLevel(level)
        if bars[0]:
            transformers.utils.logging.enable_progress_bar()
        if bars[1]:
            datasets.enable_progress_bar()
