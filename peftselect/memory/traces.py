"""Where a traced step comes from: the cache, else the warm process; a fast trace that cannot be had is an exact one."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from peftselect.memory import trace_cache
from peftselect.memory.trace import NotTracedError
from peftselect.memory.worker import shared_worker

if TYPE_CHECKING:
    from peftselect.memory.trace import TracedMemory, TraceRequest
    from peftselect.memory.worker import TraceWorker


def traced_memory(request: TraceRequest, worker: TraceWorker | None = None) -> TracedMemory:
    """The traced step. NotTracedError where it cannot be had, InputError where the request is at fault.

    A method that treats layers unalike has no fast trace: it is traced whole.
    """
    if (known := trace_cache.find(request)) is not None:
        return known
    worker = worker or shared_worker()
    try:
        found = worker.ask(request)
    except NotTracedError:
        if not request.fast:
            raise
        found = worker.ask(replace(request, fast=False))
    trace_cache.store(request, found)
    return found
