"""The solved covariances of a set of records, in the user's cache folder as a plain array: advice need not wait."""

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
SOLVER = 1
#: fewer rows are solved as fast as they are read
WORTH_KEEPING = 200
#: sets of records whose solution is kept (a run adds a record, and makes a new set)
KEPT = 3


def remembered(question: Any, rows: int, make: Callable[[], Any]) -> Any:
    """The float64 matrix (rows, rows) that ``make`` gives, or gave before for the same ``question`` (plain values).

    A file that cannot be read, or is of another size, counts as none; a folder that cannot be written is no error.
    """
    import numpy as np

    if rows < WORTH_KEEPING:
        return make()
    text = json.dumps([SOLVER, np.__version__, question], sort_keys=True)
    file = user_cache_folder() / "predictor" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.npy"
    with contextlib.suppress(OSError, ValueError, EOFError):
        found = np.load(file, allow_pickle=False)
        if found.shape == (rows, rows) and found.dtype == np.float64:
            return found
    made = make()
    _store(file, made)
    return made


def _store(file: Path, matrix: Any) -> None:
    import numpy as np

    temporary = file.with_name(f".{uuid.uuid4().hex}.npy")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(temporary, matrix, allow_pickle=False)
        os.replace(temporary, file)
        newest = sorted(file.parent.glob("[!.]*.npy"), key=lambda item: item.stat().st_mtime, reverse=True)
        for old in newest[KEPT:]:
            old.unlink(missing_ok=True)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
