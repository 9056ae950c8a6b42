"""The output folder: refused early where it cannot be used, whole or absent at the end."""

from __future__ import annotations

import contextlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError
from peftselect.training import ranks
from peftselect.training.unfinished import RESULT, held, is_probing, newest, saving, work_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

#: written last: a folder without it is no result
RECORD_FILE = "run.json"
#: what predict, evaluate and merge need to know
SERVING_FILE = "serving.json"
#: why this method, and what else there was
ADVICE_FILE = "advice.json"
DEFAULT_PARENT = "peftselect-output"


def default_folder(task: str, method: str) -> Path:
    """``./peftselect-output/TASK-METHOD-N`` with the first free number."""
    number = 1
    while _is_taken(folder := Path(DEFAULT_PARENT) / f"{task}-{method}-{number}"):
        number += 1
    return folder


def _is_taken(folder: Path) -> bool:
    return folder.exists() or work_folder(folder).exists()


def check(folder: Path, overwrite: bool, *, resumed: bool = False) -> None:
    """Refuse a folder that holds a run (unless it may be overwritten) or files which are no run at all.

    So is one towards which an interrupted run was on its way, unless that is ``resumed``.
    """
    saved = None if overwrite or resumed else newest(work_folder(folder))
    probing = not (overwrite or resumed) and is_probing(work_folder(folder))
    if saved is not None or probing:
        where = f"at step {saved.step:,} of {saved.total:,}" if saved is not None else "in its probe"
        raise InputError(
            f"the run towards {folder} was interrupted {where}",
            f"peftselect run --resume {folder} goes on, --overwrite starts anew",
        )
    if not folder.exists():
        return
    if not folder.is_dir():
        raise InputError(f"{folder} is a file, not a folder", "give another --output")
    try:
        holds = {item.name for item in folder.iterdir()}
    except OSError as error:
        raise InputError(f"{folder} cannot be read ({error.strerror})", "give another --output") from error
    if RECORD_FILE in holds and not overwrite:
        raise InputError(f"{folder} already holds a run", "give another --output, or --overwrite")
    if holds and RECORD_FILE not in holds:
        raise InputError(f"{folder} holds files that are no run", "give an empty or new folder with --output")


@contextlib.contextmanager
def staging(folder: Path, overwrite: bool, *, resumed: bool = False) -> Iterator[Path]:
    """A work folder beside ``folder``, whose ``result`` takes its place when all is done.

    Made before anything else, so that a folder which cannot be written costs no training. A ``resumed`` run finds what
    an earlier sitting left. The first process of a run makes the folder; the others wait for that, and for the end.
    """
    if not ranks.is_first():
        ranks.wait()
        yield work_folder(folder)
        ranks.wait()
        return
    check(folder, overwrite, resumed=resumed)
    with held(folder, keep=resumed) as work:
        ranks.wait()
        yield work
        with saving(work):
            _publish(work / RESULT, folder.absolute())
    ranks.wait()


def _publish(draft: Path, target: Path) -> None:
    """Move the draft into place, the record last: whoever looks in between finds no run."""
    if not target.exists():
        draft.replace(target)
        return
    (target / RECORD_FILE).unlink(missing_ok=True)
    for item in target.iterdir():
        shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    for item in sorted(draft.iterdir(), key=lambda item: item.name == RECORD_FILE):
        item.replace(target / item.name)


def write_json(file: Path, document: Any) -> None:
    """Indented JSON."""
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def write_json_lines(file: Path, documents: list[Any]) -> None:
    """One JSON document a line."""
    lines = (json.dumps(document, ensure_ascii=False) + "\n" for document in documents)
    file.write_text("".join(lines), encoding="utf-8")
