"""The folder of a run that goes on: hidden beside the output, with the order and the newest whole checkpoint.

``.NAME.unfinished/`` holds ``order.json`` (what was asked, and the candidate that was settled on), ``checkpoint-N/``,
whose ``whole.json`` is written last, and ``result/``, which becomes the output when all is done.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, PeftSelectError
from peftselect.training import ranks
from peftselect.training.probe import state

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftselect.training.plan import RunPlan
    from peftselect.training.splits import Splits

#: written last into a checkpoint: one without it is not whole
WHOLE = "whole.json"
ORDER = "order.json"
RESULT = "result"
#: what a probe has found so far, and the folder of its candidates
PROBE, PROBE_FOLDER = "probe.json", "probe"
_LOCK = ".lock"
_SUFFIX = ".unfinished"


class BusyError(InputError):
    """Another run holds the folder."""

    run_status = ""


class SavingError(PeftSelectError):
    """What a run has to write could not be written; what was saved before is kept."""


@dataclass(frozen=True)
class Checkpoint:
    """A whole checkpoint: the optimizer step it was taken after, the steps of the run, whether training was over."""

    folder: Path
    step: int
    total: int
    finished: bool = False


def work_folder(output: str | Path) -> Path:
    """Where a run towards ``output`` keeps what it needs to go on."""
    target = Path(output).absolute()
    return target.parent / f".{target.name}{_SUFFIX}"


def newest(work: Path) -> Checkpoint | None:
    """The newest whole checkpoint in a work folder; what is not whole is passed over."""
    found = []
    for marker in work.glob(f"checkpoint-*/{WHOLE}"):
        with contextlib.suppress(OSError, ValueError, KeyError):
            document = json.loads(marker.read_text(encoding="utf-8"))
            found.append(Checkpoint(marker.parent, document["step"], document["total"], document["finished"]))
    return max(found, key=lambda item: item.step, default=None)


def is_probing(work: Path) -> bool:
    """Whether a work folder holds a probe that can go on."""
    return (work / PROBE).exists() or any(work.glob(f"{PROBE_FOLDER}/*/checkpoint-*/{WHOLE}"))


def mark_whole(checkpoint: Checkpoint) -> None:
    """Say that all of a checkpoint is on the disk, then remove the older ones and what is left of half ones."""
    for file in checkpoint.folder.iterdir():
        with file.open("rb") as handle:
            os.fsync(handle.fileno())
    known = {"step": checkpoint.step, "total": checkpoint.total, "finished": checkpoint.finished}
    write_whole(checkpoint.folder / WHOLE, known)
    for folder in checkpoint.folder.parent.glob("checkpoint-*"):
        if folder != checkpoint.folder:
            (folder / WHOLE).unlink(missing_ok=True)  # first, so that a folder half removed does not pass for whole
            shutil.rmtree(folder, ignore_errors=True)


def write_whole(file: Path, document: Any) -> None:
    """Write JSON so that a reader sees all of it or nothing."""
    temporary = file.with_name(f".{file.name}.part")
    with temporary.open("w", encoding="utf-8") as handle:
        json.dump(document, handle, indent=1)
        handle.flush()
        os.fsync(handle.fileno())
    temporary.replace(file)


@contextlib.contextmanager
def held(output: Path, *, keep: bool) -> Iterator[Path]:
    """The work folder of a run towards ``output``, made anew unless it is to ``keep`` what is there, and locked.

    It goes when all is done, and when a run fails that has nothing to go on from.
    """
    from filelock import FileLock, Timeout

    work = work_folder(output)
    try:
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / _LOCK, timeout=0)
        lock.acquire()
    except Timeout as error:
        raise BusyError(f"another run is writing {output}", "wait for it, or give another --output") from error
    except OSError as error:
        raise InputError(f"{output} cannot be written ({error.strerror})", "give another --output") from error
    done = False
    try:
        if not keep:
            forget(work)
        yield work
        done = True
    except BaseException:
        done = newest(work) is None and not is_probing(work)
        raise
    finally:
        lock.release()
        if done:
            shutil.rmtree(work, ignore_errors=True)


def forget(work: Path) -> None:
    """Remove what an earlier sitting or attempt left, where it makes no sense to go on from it."""
    if not ranks.is_first():
        return
    for item in work.iterdir():
        if item.name != _LOCK:
            shutil.rmtree(item) if item.is_dir() else item.unlink()


@contextlib.contextmanager
def saving(work: Path) -> Iterator[None]:
    """Turn what goes wrong on writing into a work folder (a full disk, a folder that is gone) into one line."""
    try:
        yield
    except Exception as error:
        if not _is_about_writing(error):
            raise
        output = work.parent / work.name.removeprefix(".").removesuffix(_SUFFIX)
        if not work.is_dir():
            raise SavingError(
                f"{work} is gone: the run towards {output} has nowhere to write", "start it anew"
            ) from error
        why = getattr(error, "strerror", None) or next(iter(str(error).splitlines()), type(error).__name__)
        saved = newest(work)
        hint = (
            f"peftselect run --resume {output} goes on from step {saved.step:,}" if saved else "nothing was saved yet"
        )
        raise SavingError(f"{work} cannot be written ({why})", f"make room; {hint}") from error


def _is_about_writing(error: Exception) -> bool:
    """safetensors has an error of its own for it; torch raises RuntimeErrors."""
    if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
        return True
    known = ("inline_container", "PytorchStreamWriter", "Parent directory")
    return isinstance(error, RuntimeError) and any(word in str(error) for word in known)


def fingerprint(splits: Splits) -> str:
    """A hash of the rows: a run goes on with the rows it began with."""
    text = json.dumps([splits.train, splits.validation, splits.test], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def write_order(work: Path, plan: RunPlan) -> None:
    """Keep what a later sitting needs to ask the same again, and the candidate that was settled on."""
    if not ranks.is_first():
        return
    order, candidate = plan.order, plan.chosen.candidate
    task = order.task if isinstance(order.task, str) else order.task.name
    asked = {name: getattr(order, name) for name in order.__dataclass_fields__}
    for name in ("train", "evaluation", "test", "model", "output"):
        asked[name] = _absolute(asked[name])
    document = {
        "order": {**asked, "task": task},
        "candidate": {
            "method": candidate.method.name,
            "values": dict(candidate.values),
            "recipe": asdict(candidate.recipe),
            "set_by": dict(candidate.set_by),
        },
        "recommended": plan.recommended,
        "trail": list(plan.trail),
        "probe": state(plan.probe) if plan.probe is not None else None,
        "rows": fingerprint(plan.splits),
    }
    write_whole(work / ORDER, plain(document))


def plain(document: Any) -> Any:
    """The document as JSON has it."""
    return json.loads(json.dumps(document, default=_plain))


def _absolute(path: Any) -> Any:
    """Paths that are there as seen from anywhere; names of catalogues and hubs as they are."""
    return None if path is None else str(Path(path).absolute()) if Path(path).exists() else str(path)


def _plain(value: Any) -> Any:
    return sorted(value) if isinstance(value, set | frozenset) else str(value)


def asked_for_cpu(output: str | Path) -> bool:
    """Whether the run towards ``output`` was to stay off the cards."""
    try:
        return bool(read_order(output)["order"]["question"].get("device") == "cpu")
    except InputError:
        return False


def read_order(output: str | Path) -> dict[str, Any]:
    """What :func:`write_order` kept; InputError where there is no run to go on with."""
    work = work_folder(output)
    try:
        document = json.loads((work / ORDER).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        done = (Path(output) / "run.json").exists()
        why = "its run is finished" if done else f"there is no {work}"
        raise InputError(
            f"{output}: nothing to go on with ({why})", "give the --output of an interrupted run"
        ) from error
    return dict(document)
