"""Traces that were made before, in the user's cache folder: the same question under the same libraries is free."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import uuid
from dataclasses import asdict
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from peftselect.memory.trace import TracedMemory
from peftselect.resources import user_cache_folder

if TYPE_CHECKING:
    from pathlib import Path

    from peftselect.memory.trace import TraceRequest

#: what decides a trace beside the request: the code that is traced, and our own
LIBRARIES = ("torch", "transformers", "peft", "accelerate", "bitsandbytes", "peftselect")
#: raised when the tracer itself changes, so that old answers are not taken for its own
TRACER = 3


def find(request: TraceRequest) -> TracedMemory | None:
    """The stored answer, or None; a file that cannot be read counts as none."""
    try:
        return TracedMemory(**json.loads(_file(request).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None


def store(request: TraceRequest, traced: TracedMemory) -> None:
    """Keep an answer, whole or not at all; a folder that cannot be written is no error, only no cache."""
    file = _file(request)
    temporary = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(json.dumps(asdict(traced)), encoding="utf-8")
        os.replace(temporary, file)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _file(request: TraceRequest) -> Path:
    text = json.dumps([TRACER, _versions(), request.to_json()], sort_keys=True, default=str)
    return user_cache_folder() / "traces" / f"{hashlib.sha256(text.encode()).hexdigest()[:32]}.json"


@cache
def _versions() -> list[str]:
    found = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            found.append(f"{name} none")
    return found
