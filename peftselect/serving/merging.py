"""The adapter merged into its base model, checked against the model that keeps them apart."""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from peftselect import modeling
from peftselect.errors import InputError, UnsupportedError
from peftselect.serving.loaded import load
from peftselect.training.progress import quiet

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftselect.serving.saved import Saved

#: largest difference of a logit, as a share of the largest logit, that rounding explains (float32; 16 bits)
TOLERANCE = {"fp32": 1e-4}
WIDER = 3e-2


@dataclass(frozen=True)
class Merged:
    """Where the merged model lies, and by how much its logits differ at most (absolute, and as a share)."""

    folder: Path
    largest_difference: float
    share: float


def merge(saved: Saved, output: str | Path) -> Merged:
    """Write the merged model to ``output`` and say how far its logits are from the unmerged model's.

    UnsupportedError where the method cannot be merged, or where the logits differ by more than rounding does: then
    nothing is left in ``output``.
    """
    target = Path(output)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{output} is there already", "give a new or empty folder")
    if saved.whole_model:
        raise UnsupportedError(f"{saved.name} is a whole model already", "use its folder as it is")
    if not saved.mergeable:
        raise UnsupportedError(f"{saved.method} cannot be merged into its base", "serve the adapter beside the base")
    if saved.quantization is not None:
        raise UnsupportedError(
            f"the base was held in {saved.quantization}: merging rounds again", "serve the adapter beside the base"
        )
    loaded = load(saved)
    apart = loaded.logits()
    try:
        loaded.model = modeling.merge(loaded.model)
    except (AttributeError, NotImplementedError, ValueError, TypeError) as error:
        raise UnsupportedError(
            f"{saved.method or saved.name} cannot be merged into its base ({type(error).__name__})",
            "serve the adapter beside the base",
        ) from error
    together = loaded.logits()
    largest = float((together - apart).abs().max())
    share = largest / max(float(apart.abs().max()), 1e-12)
    if share > TOLERANCE.get(loaded.recipe.precision, WIDER):
        raise UnsupportedError(
            f"merged, the logits differ by {largest:.3g} ({share:.1%} of the largest): more than rounding explains",
            "serve the adapter beside the base",
        )
    with quiet(), _whole_or_nothing(target):
        loaded.model.save_pretrained(target)
        for processor in loaded.context.processors:
            processor.save_pretrained(target)
    return Merged(target, largest, share)


@contextlib.contextmanager
def _whole_or_nothing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        raise InputError(f"{folder} cannot be written ({error.strerror})", "give another --output") from error
