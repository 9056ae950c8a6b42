"""What was solved of a set of records, in the user's cache folder: advice need not wait.

The covariance's inverse is kept as a plain array, and what the predictor expects in a situation as JSON: asked again
with another budget or preference, it answers without numpy, whose import takes a third as long as all the rest.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from typing import TYPE_CHECKING, Any

from peftselect.resources import user_cache_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

#: raised when what is solved changes for the same question
SOLVER = 2
#: fewer rows are solved as fast as they are read
WORTH_KEEPING = 200
#: sets of records whose solution is kept (a run adds a record, and makes a new set), and situations
KEPT, KEPT_ANSWERS = 3, 50


def digest(question: Any) -> str:
    """A short name of a question in plain values."""
    text = json.dumps([SOLVER, question], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def remembered(question: Any, rows: int, make: Callable[[], Any]) -> Any:
    """The float64 matrix (rows, rows) that ``make`` gives, or gave before for the same ``question`` (plain values).

    A file that cannot be read, or is of another size, counts as none; a folder that cannot be written is no error.
    """
    import numpy as np

    if rows < WORTH_KEEPING:
        return make()
    file = user_cache_folder() / "predictor" / f"{digest([np.__version__, question])}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        found = np.load(file, allow_pickle=False)
        if found.shape == (rows, rows) and found.dtype == np.float64:
            return found
    made = make()
    _store(file, KEPT, lambda temporary: np.save(temporary, made, allow_pickle=False))
    return made


def remembered_answer(
    question: Any, rows: int, names: list[str], make: Callable[[], list[tuple[float, float]]]
) -> dict[str, tuple[float, float]]:
    """The pair of numbers of each name that ``make`` gives in their order, or gave before for the same ``question``."""
    if rows < WORTH_KEEPING:
        return dict(zip(names, make(), strict=True))
    file = user_cache_folder() / "predictor" / f"{digest(question)}.json"
    with contextlib.suppress(OSError, ValueError, TypeError):
        found = {name: (float(one), float(other)) for name, (one, other) in json.loads(file.read_bytes()).items()}
        if list(found) == names:
            return found
    made = dict(zip(names, make(), strict=True))
    _store(file, KEPT_ANSWERS, lambda temporary: temporary.write_text(json.dumps(made), encoding="utf-8"))
    return made


def _store(file: Path, kept: int, write: Callable[[Path], object]) -> None:
    """Write a file whole, and leave only the newest of its kind."""
    temporary = file.with_name(f".{uuid.uuid4().hex}{file.suffix}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write(temporary)
        os.replace(temporary, file)
        newest = sorted(file.parent.glob(f"[!.]*{file.suffix}"), key=lambda item: item.stat().st_mtime, reverse=True)
        for old in newest[kept:]:
            old.unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
