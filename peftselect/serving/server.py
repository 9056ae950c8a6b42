"""A small HTTP server over FastAPI: adapters answer by name, numbers for Prometheus, limits on what comes in.

Nothing that was asked is logged unless the user names a file for it (thesis 3.5).
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Histogram, generate_latest

from peftselect.errors import InputError, PeftSelectError, UnknownNameError
from peftselect.serving import inputs

if TYPE_CHECKING:
    from peftselect.serving.adapters import Adapters
    from peftselect.task import Row, Task

#: bytes that a character may take in JSON (escaped), and room for the rest of a request
_WIDEST, _REST = 6, 10_000


@dataclass(frozen=True)
class Limits:
    """What one request may hold."""

    inputs: int = 64
    characters: int = 20_000

    @property
    def body_bytes(self) -> int:
        """Bytes of the largest body that is read."""
        return self.inputs * self.characters * _WIDEST + _REST


class RefusedError(PeftSelectError):
    """A request over a limit."""


class Numbers:
    """What is counted of the requests: by adapter, never by content."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "peftselect_requests", "Requests by adapter and status.", ["adapter", "status"], registry=self.registry
        )
        self.inputs = Counter("peftselect_inputs", "Inputs predicted.", ["adapter"], registry=self.registry)
        self.seconds = Histogram("peftselect_seconds", "Seconds to an answer.", ["adapter"], registry=self.registry)
        self.characters = Histogram(
            "peftselect_input_characters", "Length of the inputs.", ["adapter"], registry=self.registry,
            buckets=[10.0 * 4**power for power in range(7)],
        )  # fmt: skip


def make_app(adapters: Adapters, limits: Limits | None = None, log: Path | None = None) -> FastAPI:
    """The application: ``POST /predict``, ``GET /adapters``, ``/health`` and ``/metrics``.

    ``log`` is a file to which questions and answers are appended as JSON lines, for ``monitor``.
    """
    bounds, numbers = limits or Limits(), Numbers()
    app = FastAPI(title="peftselect", docs_url=None, redoc_url=None)  # those pages fetch scripts from elsewhere

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/adapters")
    def offered() -> list[dict[str, Any]]:
        return [_about(adapters, name) for name in adapters.names]

    @app.get("/metrics")
    def metrics() -> Response:
        return Response(generate_latest(numbers.registry), media_type=CONTENT_TYPE_LATEST)

    @app.post("/predict")
    async def predict(request: Request) -> JSONResponse:
        started, name, code = time.perf_counter(), "", 200
        try:
            question = _read(await _body(request, bounds), bounds)
            loaded = adapters.find(question.get("adapter"))
            name = loaded.saved.name
            rows = _rows(question["inputs"], loaded.task)
            answers = await run_in_threadpool(adapters.predict, name, rows)
            document: dict[str, Any] = {"adapter": name, "predictions": answers}
        except PeftSelectError as error:
            code = 413 if isinstance(error, RefusedError) else 404 if isinstance(error, UnknownNameError) else 422
            document = {"error": {"message": error.message, "hint": error.hint}}
        numbers.requests.labels(name, code).inc()
        if code == 200:
            _count(numbers, name, rows, time.perf_counter() - started)
            _append(log, name, rows, answers)
        return JSONResponse(document, status_code=code)

    return app


def _about(adapters: Adapters, name: str) -> dict[str, Any]:
    saved = adapters.find(name).saved
    about = {"name": name, "task": saved.task, "model": saved.model, "method": saved.method}
    return {**about, "labels": list(saved.labels)}


async def _body(request: Request, limits: Limits) -> bytes:
    """The body, refused as soon as it is too long."""
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > limits.body_bytes:
            raise RefusedError("the request is too large", f"at most {limits.body_bytes:,} bytes")
    return body


def _read(body: bytes, limits: Limits) -> dict[str, Any]:
    hint = 'send {"inputs": ["...", ...], "adapter": "NAME"}'
    try:
        question = json.loads(body)
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError("the request is not JSON", hint) from error
    asked = question.get("inputs") if isinstance(question, dict) else None
    if not isinstance(asked, list) or not asked or not all(isinstance(item, str | dict) for item in asked):
        raise InputError("inputs is no list of texts or rows", hint)
    if not isinstance(question.get("adapter"), str | None):
        raise InputError("adapter is no name", hint)
    if len(asked) > limits.inputs:
        raise RefusedError(f"{len(asked)} inputs in one request", f"at most {limits.inputs}")
    longest = max(len(item) if isinstance(item, str) else len(json.dumps(item)) for item in asked)
    if longest > limits.characters:
        raise RefusedError(f"an input of {longest:,} characters", f"at most {limits.characters:,}")
    return dict(question)


def _rows(asked: list[Any], task: Task) -> list[Row]:
    if all(isinstance(item, str) for item in asked):
        return inputs.rows_from_texts(asked, task)
    numbered = [(f"input {number}", item) for number, item in enumerate(asked, 1)]
    if not all(isinstance(item, dict) for item in asked):
        raise InputError("inputs holds texts and rows", "send one or the other")
    return inputs.make_rows(numbered, task, {}, "the request")


def _count(numbers: Numbers, name: str, rows: list[Row], seconds: float) -> None:
    numbers.inputs.labels(name).inc(len(rows))
    numbers.seconds.labels(name).observe(seconds)
    for row in rows:
        numbers.characters.labels(name).observe(sum(len(str(cell)) for cell in row.values()))


def _append(log: Path | None, name: str, rows: list[Row], answers: list[Any]) -> None:
    if log is None:
        return
    lines = [{"adapter": name, **row, "prediction": answer} for row, answer in zip(rows, answers, strict=True)]
    with log.open("a", encoding="utf-8") as handle:
        handle.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
