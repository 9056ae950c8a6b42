"""The processes of one run (torchrun, accelerate launch): who is first, what they agree on, and whose error is told.

The first writes and speaks, the others wait. Words go as JSON through the store by which the processes found one
another, so that nothing is unpickled. In a run of one process all of this is nothing.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import PeftSelectError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from peftselect.training.plan import RunPlan

#: by which accelerate's launcher says that DeepSpeed is asked for
DEEPSPEED = "ACCELERATE_USE_DEEPSPEED"

_FAILED = "peftselect/failed"
_turns = itertools.count()


class Quiet(SystemExit):
    """Another process tells what went wrong."""


def count() -> int:
    """How many processes the launcher has started for this run."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def number() -> int:
    """The number of this process, from 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_first() -> bool:
    """Whether this process writes and speaks."""
    return number() == 0


def join(*, cpu: bool) -> None:
    """Meet the other processes, on ``cpu`` or on a card each."""
    if count() == 1:
        return
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # each process would warn of parameters that all are used
    import torch
    from accelerate import PartialState

    # DeepSpeed is started once there is something to train: processes meet as they do without it
    asked = os.environ.pop(DEEPSPEED, None)
    PartialState(cpu=cpu or not torch.cuda.is_available())
    if asked is not None:
        os.environ[DEEPSPEED] = asked


def joined() -> bool:
    """Whether the processes have met; from then on one of them tells, perhaps not the first."""
    import sys

    torch = sys.modules.get("torch")
    return torch is not None and torch.distributed.is_available() and bool(torch.distributed.is_initialized())


def wait() -> None:
    """Until all have come here."""
    if count() > 1:
        import torch.distributed

        torch.distributed.barrier()


def share(document: Any) -> Any:
    """The first process's JSON document, in all of them."""
    return gather(document)[0]


def gather(document: Any) -> list[Any]:
    """The JSON documents of all processes, in their order, in all of them."""
    if count() == 1:
        return [document]
    turn, store = next(_turns), _store()
    store.set(f"peftselect/{turn}/{number()}", json.dumps(document))
    return [json.loads(store.get(f"peftselect/{turn}/{other}")) for other in range(count())]


def any_of(*flags: bool) -> tuple[bool, ...]:
    """Each flag as True where it is so in any process; to be called by all at the same moment."""
    if count() == 1:
        return flags
    import torch
    from accelerate import PartialState

    votes = torch.tensor(flags, dtype=torch.int32, device=PartialState().device)
    torch.distributed.all_reduce(votes, op=torch.distributed.ReduceOp.MAX)
    return tuple(bool(vote) for vote in votes.tolist())


def mean(value: Any) -> Any:
    """A tensor's mean over the processes."""
    if count() > 1:
        import torch.distributed

        torch.distributed.all_reduce(value, op=torch.distributed.ReduceOp.SUM)
        value /= count()
    return value


@contextlib.contextmanager
def together() -> Iterator[None]:
    """All processes come out of the block, or none: the first error is raised in the first process, and told there.

    Within the block they do not wait for one another.
    """
    if count() == 1:
        yield
        return
    error: PeftSelectError | None = None
    try:
        yield
    except PeftSelectError as caught:
        error = caught
    told = gather(None if error is None else [error.message, error.hint, error.exit_code])
    if not any(told):
        return
    if not is_first():
        raise Quiet(next(item[2] for item in told if item))
    if error is not None:
        raise error
    other = next(index for index, item in enumerate(told) if item)
    raise _retold(other, *told[other])


def agreed(settle: Callable[[], RunPlan], *, cpu: bool) -> RunPlan:
    """What ``settle`` gives, with the output folder of the first process."""
    join(cpu=cpu)
    with together():
        plan = settle()
    return replace(plan, output=Path(share(str(plan.output)))) if count() > 1 else plan


@contextlib.contextmanager
def telling_once() -> Iterator[None]:
    """Let one process tell what went wrong: what the others meet is that it is gone."""
    try:
        yield
    except BaseException as error:
        if count() == 1 or isinstance(error, Quiet):
            raise
        # all of them are told to stop; of anything else the one tells that has met it
        tells = is_first() if isinstance(error, KeyboardInterrupt) else _is_first_to_fail()
        if not tells:
            raise Quiet(getattr(error, "exit_code", 1)) from error
        raise


def _retold(other: int, message: str, hint: str, exit_code: int) -> PeftSelectError:
    error = PeftSelectError(f"{message} (process {other})", hint)
    error.exit_code = exit_code
    return error


def _is_first_to_fail() -> bool:
    try:
        return int(_store().add(_FAILED, 1)) == 1
    except Exception:  # the store went with the process that had it
        return False


def _store() -> Any:
    from torch.distributed import distributed_c10d

    return distributed_c10d._get_default_store()
