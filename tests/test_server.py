"""Adapters over HTTP, asked as programs ask them: a real server on a free port."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

import peftselect
from tests.test_run import arguments
from tests.test_serving import said

pytest.importorskip("fastapi", reason="the extra 'serve' is not installed")


@dataclass(frozen=True)
class Server:
    """A running server, the runs it serves, and the file it may log to."""

    address: str
    runs: dict[str, Path]
    models: int
    log: Path

    def ask(self, path: str, body: Any = None) -> tuple[int, str]:
        """Status and text of the answer."""
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(urllib.request.Request(self.address + path, data)) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def wait(self) -> None:
        """Return once it listens.

        :raises TimeoutError: it does not within half a minute
        """
        for _ in range(300):
            with suppress(urllib.error.URLError):
                self.ask("/health")
                return
            time.sleep(0.1)
        raise TimeoutError(self.address)


@pytest.fixture(scope="module")
def server(tiny_models: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Two LoRAs and a bitfit on one base, and a summarizer, behind uvicorn."""
    import uvicorn

    from peftselect.serving.adapters import Adapters
    from peftselect.serving.saved import read_saved
    from peftselect.serving.server import Limits, make_app

    folder = tmp_path_factory.mktemp("server")
    wanted = {
        "first": ("classification", "bert", "lora", 0),
        "second": ("classification", "bert", "lora", 5),
        "biases": ("classification", "bert", "bitfit", 0),
        "summaries": ("summarization", "t5", "ia3", 0),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PEFTSELECT_HOME", str(folder / "home"))
        runs = {}
        for name, (task, kind, method, seed) in wanted.items():
            settings = {"num_train_epochs": 4, "learning_rate": 0.01}
            order = arguments(folder, task, tiny_models(kind), method, settings=settings)
            runs[name] = peftselect.run(**{**order, "output": folder / name, "seed": seed}).output
    adapters = Adapters([read_saved(run) for run in runs.values()])
    log = folder / "asked.jsonl"
    app = make_app(adapters, Limits(inputs=16, characters=200), log)
    running = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", access_log=False))
    thread = threading.Thread(target=running.run, daemon=True)
    thread.start()
    while not running.started:
        time.sleep(0.01)
    port = running.servers[0].sockets[0].getsockname()[1]
    yield Server(f"http://127.0.0.1:{port}", runs, adapters.models, log)
    running.should_exit = True
    thread.join(10)


def kept(run: Path) -> list[dict[str, Any]]:
    """What a run predicted on its test rows."""
    return [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("name", ["first", "second", "biases", "summaries", "first"])
def test_each_request_chooses_its_adapter(server: Server, name: str) -> None:
    lines = kept(server.runs[name])
    status, text = server.ask("/predict", {"adapter": name, "inputs": [line["input"][0] for line in lines]})
    assert status == 200
    assert json.loads(text) == {"adapter": name, "predictions": [line["prediction"] for line in lines]}


def test_adapters_of_one_base_share_it_where_they_can(server: Server) -> None:
    # the two LoRAs do; biases are trained in place, and a summarizer has another base
    assert server.models == 3
    status, text = server.ask("/adapters")
    assert status == 200
    assert [(item["name"], item["method"]) for item in json.loads(text)] == [
        ("first", "lora"), ("second", "lora"), ("biases", "bitfit"), ("summaries", "ia3"),
    ]  # fmt: skip
    assert server.ask("/health") == (200, '{"status":"ok"}')


REFUSED: list[tuple[Any, int, str]] = [
    (b"{", 422, "the request is not JSON"),
    ({"inputs": []}, 422, "inputs is no list of texts or rows"),
    ({"inputs": ["a", {"text": "b"}]}, 422, "inputs holds texts and rows"),
    ({"inputs": [{"words": "a"}]}, 422, "the request has no column for the text of classification"),
    ({"inputs": ["a"], "adapter": "third"}, 404, "unknown adapter 'third'"),
    ({"inputs": ["a"], "adapter": 3}, 422, "adapter is no name"),
    ({"inputs": ["a"] * 17}, 413, "17 inputs in one request"),
    ({"inputs": ["a" * 201]}, 413, "an input of 201 characters"),
    (b" " * 40_000, 413, "the request is too large"),
]


@pytest.mark.parametrize(("body", "status", "message"), REFUSED)
def test_what_is_not_in_order_is_refused_in_a_line(server: Server, body: Any, status: int, message: str) -> None:
    found, text = server.ask("/predict", body)
    assert found == status
    error = json.loads(text)["error"]
    assert error["message"].startswith(message)
    assert error["hint"]


def test_numbers_are_counted_and_questions_are_not(server: Server) -> None:
    server.ask("/predict", {"adapter": "second", "inputs": [{"text": "w1 w2 secretword"}]})
    status, text = server.ask("/metrics")
    assert status == 200
    assert 'peftselect_requests_total{adapter="second",status="200"}' in text
    assert 'peftselect_seconds_bucket{adapter="second",le="' in text
    assert 'peftselect_inputs_total{adapter="second"}' in text
    assert "secretword" not in text
    last = json.loads(server.log.read_text().splitlines()[-1])
    assert (last["adapter"], last["text"]) == ("second", "w1 w2 secretword")


def test_nothing_is_logged_unless_asked_for(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from starlette.requests import Request

    from peftselect.serving.server import make_app

    monkeypatch.chdir(tmp_path)

    class Echo:
        names = ("one",)

        def find(self, name: str | None) -> Any:
            from peftselect.plugin_manager import host
            from peftselect.serving.saved import Saved

            class Loaded:
                saved = Saved(tmp_path, "classification", "m")
                task = host().task("classification")

            return Loaded()

        def predict(self, name: str | None, rows: list[Any]) -> list[Any]:
            return ["x"] * len(rows)

    app = make_app(Echo())  # type: ignore[arg-type]
    (endpoint,) = [route.endpoint for route in app.routes if getattr(route, "path", "") == "/predict"]

    async def body() -> dict[str, Any]:
        return {"type": "http.request", "body": b'{"inputs": ["a"]}', "more_body": False}

    import asyncio

    answer = asyncio.run(endpoint(Request({"type": "http", "method": "POST", "headers": []}, body)))
    assert answer.status_code == 200
    assert list(tmp_path.iterdir()) == []


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert "there is no folder" in said(capsys, "serve", tmp_path / "none", code=2)


def test_an_address_that_cannot_be_had_is_refused_before_anything_is_loaded(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    port = server.address.rpartition(":")[2]
    error = said(capsys, "serve", server.runs["first"], "--port", port, code=2)
    assert f"cannot listen at 127.0.0.1:{port}: address already in use" in error
    assert "loading" not in error
    assert "--port takes another port" in error
    assert "no such address: nowhere.invalid" in said(
        capsys, "serve", server.runs["first"], "--host", "nowhere.invalid", code=2
    )


def test_the_command_answers_until_it_is_interrupted(server: Server) -> None:
    run = server.runs["first"]
    command = [sys.executable, "-m", "peftselect", "serve", str(run), "--port", "0"]
    # a shell's background job hands on that Ctrl-C is ignored
    ordinary = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **ordinary) as process:
        assert process.stderr is not None
        try:
            said_where = next(line for line in process.stderr if " at http://" in line)
            own = replace(server, address=said_where.split(" at ")[1].strip())
            own.wait()
            asked = kept(run)[0]
            status, text = own.ask("/predict", {"inputs": asked["input"][:1]})
            assert (status, json.loads(text)["predictions"]) == (200, [asked["prediction"]])
        finally:
            process.send_signal(signal.SIGINT)
        assert process.stderr.read() == ""
        assert process.wait(30) == 0
