"""Runs of a suite on a Ray cluster: each asks for the share of a card that its predicted peak memory needs.

Every machine needs peftselect and, at the same paths, the data; folders are written where a run has run. Results come
back to the machine that asked, and into its results store.
"""

from __future__ import annotations

import contextlib
import json
import math
import socket
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, PeftSelectError
from peftselect.problem import GIB
from peftselect.record import RunRecord
from peftselect.results import user_store
from peftselect.suite.definition import as_run_arguments
from peftselect.suite.outcome import Outcome, remember_failure

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from peftselect.suite.definition import SuiteRun

#: how often a run is begun anew whose worker or machine was lost
RETRIES = 3
#: how long a process that lost its machine may go on holding its run's folder
ORPHAN_SECONDS = 120.0
KNOCK_SECONDS = 10.0
_START = "`ray start --head` starts one"
#: Ray counts cards in ten thousandths
_GRAIN = 10_000
_PATHS = ("model", "train", "evaluation", "test")


@dataclass(frozen=True)
class Placed:
    """A run with what it asks for: the share of a card (0 where there are none), and the budget it is planned for."""

    run: SuiteRun
    share: float
    vram_gib: float | None = None

    @property
    def words(self) -> str:
        """The share for people."""
        return f"{self.share:.2g} of a card" if self.share else "a core"


def card_share(needed_bytes: float, card_bytes: float) -> float:
    """The part of a card that ``needed_bytes`` are, rounded up to what Ray counts in; at most a whole one."""
    return min(math.ceil(_GRAIN * needed_bytes / card_bytes) / _GRAIN, 1.0)


def run_on_cluster(
    runs: Sequence[SuiteRun],
    output: Path,
    address: str,
    card_gib: float | None,
    began: Callable[[Outcome], None],
    ended: Callable[[Outcome], None],
) -> None:
    """Do ``runs`` on the cluster at ``address``; both functions are called in this thread, in the order of events.

    A run whose worker or machine is lost is begun anew, at most :data:`RETRIES` times. One that runs out of memory
    beside others is tried once more with a card of its own before it counts as such. InputError where Ray or the
    cluster is not there, or its cards' memory can neither be read nor is given.
    """
    # Ray tells of lost machines on standard output, which is for results
    with contextlib.redirect_stdout(sys.stderr):
        ray = _connect(address)
        try:
            card = _card_bytes(ray, card_gib)
            waiting = _submit(ray, _place(runs, card, ended), output.absolute(), began)
            while waiting:
                (ready,), _ = ray.wait(list(waiting))
                placed = waiting.pop(ready)
                outcome = _outcome(ray, ready, placed)
                if outcome.status == "oom" and 0 < placed.share < 1:
                    waiting |= _submit(ray, [replace(placed, share=1.0)], output.absolute(), began)
                else:
                    ended(outcome)
        finally:
            ray.shutdown()


def _connect(address: str) -> Any:
    _knock(address)
    try:
        import ray
    except ImportError as error:
        raise InputError("Ray is not installed", "pip install 'peftselect[ray]'") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR")
    except (ConnectionError, RuntimeError, ValueError) as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"there is no Ray cluster at {address} ({why})", _START) from error
    return ray


def _knock(address: str) -> None:
    """Raise InputError where nobody listens at an address; Ray itself would go on trying for minutes."""
    if address in ("auto", "local"):
        return
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not (host and port.isdigit()):
        raise InputError(f"--ray {address} is no address", "write auto, or HOST:PORT of the cluster's head")
    try:
        socket.create_connection((host, int(port)), KNOCK_SECONDS).close()
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise InputError(f"there is no Ray cluster at {address} ({why})", _START) from error


def _card_bytes(ray: Any, card_gib: float | None) -> float | None:
    """Memory of the smallest card of the cluster, None where it has none."""
    nodes = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["Resources"].get("GPU")]
    if not nodes:
        return None
    if card_gib is not None:
        return card_gib * GIB
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy as OnNode

    ask = ray.remote(num_cpus=0)(_read_card)
    found = ray.get([ask.options(scheduling_strategy=OnNode(node, soft=False)).remote() for node in nodes])
    if not all(found):
        raise InputError("the memory of the cluster's cards cannot be read", "give it: --card GIB")
    return float(min(found))


def _read_card() -> int:
    from peftselect.hardware import read_card

    card = read_card()
    return card[1] if card else 0


def _place(runs: Sequence[SuiteRun], card: float | None, ended: Callable[[Outcome], None]) -> list[Placed]:
    """What each run asks for, by the memory that is predicted of it; a run that cannot be planned ends here."""
    if card is None:
        return [Placed(item, 0.0) for item in runs]
    from peftselect import api

    placed = []
    for item in runs:
        arguments = as_run_arguments(item.arguments)
        vram = arguments.pop("vram_gib", None) or card / GIB
        try:
            memory = api.plan_run(**arguments, vram_gib=vram).chosen.memory
        except PeftSelectError as error:
            ended(remember_failure(item, error.message))
        else:
            needed = memory.device_bytes * (1 + memory.error_band_percent / 100)
            placed.append(Placed(item, card_share(needed, card), vram))
    return placed


def _submit(ray: Any, placed: Sequence[Placed], output: Path, began: Callable[[Outcome], None]) -> dict[Any, Placed]:
    """Hand runs to the cluster. A process that had a share of a card ends with its run, and gives the memory back."""
    refs = {}
    for item in placed:
        options: dict[str, Any] = {"num_cpus": 1, "num_gpus": item.share, "max_retries": RETRIES}
        if item.share:
            options["max_calls"] = 1
        more = {} if item.vram_gib is None else {"vram_gib": item.vram_gib}
        request = {
            "suite": item.run.suite,
            "arguments": item.run.arguments,
            "more": {**more, **_paths(item.run)},
            "folder": str(output / item.run.key),
            "share": item.share,
        }
        text = json.dumps(request, default=str)
        refs[ray.remote(**options)(_work).remote(text)] = item
        began(Outcome(item.run, "running", placed=item.words))
    return refs


def _paths(item: SuiteRun) -> dict[str, str]:
    """Files and folders that are here, as they are seen from any folder."""
    arguments = as_run_arguments(item.arguments)
    found = {name: Path(str(arguments[name])) for name in _PATHS if arguments.get(name)}
    return {name: str(path.absolute()) for name, path in found.items() if path.exists()}


def _work(text: str) -> str:
    """On a worker: the run, with a store of its own whose records go back to the one who asked."""
    import os
    import tempfile
    import time

    import ray

    from peftselect.results import STORE_VARIABLE, ResultsStore
    from peftselect.suite.worker import answer

    request = json.loads(text)
    node = ray.get_runtime_context().get_node_id()
    place = {"node": node, "cards": ray.get_gpu_ids(), "card_share": request["share"], "began": time.time()}
    with tempfile.TemporaryDirectory() as folder:
        os.environ[STORE_VARIABLE] = folder
        reply = answer({**request, "place": place})
        until = time.monotonic() + ORPHAN_SECONDS
        while reply["status"] == "not run" and time.monotonic() < until:
            time.sleep(1)  # the process of a lost machine holds the folder until it notices
            reply = answer({**request, "place": place})
        records = [record.to_json() for record in ResultsStore(folder).read(broken=[])]
    return json.dumps({**reply, "records": records})


def _outcome(ray: Any, ref: Any, placed: Placed) -> Outcome:
    """What came back, put into the results store here, with where it ran; a lost run is recorded as failed."""
    try:
        reply = json.loads(ray.get(ref))
    except ray.exceptions.RayError as error:
        why = next(iter(str(error).splitlines()), type(error).__name__)
        return remember_failure(placed.run, f"lost on the cluster {RETRIES + 1} times ({why})")
    mine = [RunRecord.from_json(item) for item in reply["records"]]
    last = next((item for item in mine if item.status == reply["status"]), None)
    if reply["status"] != "oom" or placed.share in (0.0, 1.0):
        for record in mine:
            user_store().append(record)
    return Outcome(placed.run, reply["status"], last, reply["because"], placed.words)
