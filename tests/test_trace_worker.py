"""The warm tracing process: it answers many times, dies without harm, and what it said is remembered."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from peftselect.errors import InputError
from peftselect.memory import trace_cache, worker
from peftselect.memory.estimate import price
from peftselect.memory.setting import Setting, settle
from peftselect.memory.trace import NotTracedError, TraceRequest
from peftselect.memory.traces import traced_memory
from peftselect.memory.worker import TraceWorker
from peftselect.problem import Hardware
from tests.test_trace import request as make_request


@pytest.fixture(scope="module")
def tracer() -> Iterator[TraceWorker]:
    made = TraceWorker()
    yield made
    made.close()


@pytest.fixture
def asked(tiny_models) -> TraceRequest:
    return make_request(tiny_models("llama"))


def test_one_process_answers_many_and_another_takes_over_when_it_dies(tracer: TraceWorker, asked: TraceRequest) -> None:
    first = tracer.ask(asked)
    started = tracer.process_id
    assert tracer.ask(asked).peak_allocated_bytes == first.peak_allocated_bytes
    assert tracer.process_id == started
    with pytest.raises(NotTracedError):
        tracer.ask(replace(asked, recipe=replace(asked.recipe, optimizer="no_such_optimizer")))
    with pytest.raises(InputError, match="does not suit the model"):
        tracer.ask(replace(asked, peft_config={"peft_type": "LORA", "target_modules": ["nowhere"]}))
    assert tracer.process_id == started
    assert started is not None
    os.kill(started, signal.SIGKILL)
    assert tracer.ask(asked).peak_allocated_bytes == first.peak_allocated_bytes
    assert tracer.process_id not in (None, started)


def test_a_trace_that_takes_too_long_is_given_up(asked: TraceRequest) -> None:
    hasty = TraceWorker(time_limit_seconds=0.05)
    with pytest.raises(NotTracedError, match=r"it took more than 0\.05 s"):
        hasty.ask(asked)
    assert hasty.process_id is None


def test_a_process_that_cannot_start_is_no_trace(asked: TraceRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "MODULE", "peftselect.no_such_module")
    with pytest.raises(NotTracedError, match=r"the tracing process died \(exit 1\)"):
        TraceWorker().ask(asked)


def test_what_was_traced_is_remembered(tracer: TraceWorker, asked: TraceRequest, isolated_home: Path) -> None:
    found = traced_memory(asked, tracer)
    (file,) = (isolated_home / "cache" / "traces").iterdir()
    dead = TraceWorker(time_limit_seconds=0)
    assert traced_memory(asked, dead) == found
    file.write_text("half of a fi")
    assert trace_cache.find(asked) is None
    assert trace_cache.find(replace(asked, fast=True)) is None
    (isolated_home / "cache" / "traces" / file.name).unlink()
    (isolated_home / "cache" / "traces").rmdir()
    (isolated_home / "cache" / "traces").write_text("a file where the folder should be")
    trace_cache.store(asked, found)  # no cache is no error
    assert trace_cache.find(asked) is None


MODELS = {
    "llama": {"num_hidden_layers": 8},
    "t5": {"num_layers": 6, "num_decoder_layers": 5},
    "bert": {"num_hidden_layers": 7},
}


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("method", ["lora", "adapter_houlsby", "full_finetuning"])
def test_a_few_layers_extended_are_the_whole(
    tracer: TraceWorker, tiny_models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    """Allocated bytes within 0.3 %, parameters and file to the last."""
    config = json.loads((tiny_models(kind) / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, **MODELS[kind]}))
    asked = make_request(tmp_path, {"llama": "causal_lm", "t5": "seq2seq_lm", "bert": "token_classification"}[kind],
                         method, max_target_length=16 if kind == "t5" else 0, micro_batch_size=16,
                         precision="pure_bf16" if method == "full_finetuning" else "bf16")  # fmt: skip
    fast, exact = tracer.ask(replace(asked, fast=True)), tracer.ask(asked)
    assert fast.fast
    assert not exact.fast
    assert fast.peak_allocated_bytes == pytest.approx(exact.peak_allocated_bytes, rel=0.003)
    for field in ("trainable_parameters", "total_parameters", "adapter_bytes"):
        assert getattr(fast, field) == getattr(exact, field), field


def test_a_method_that_treats_layers_unalike_is_traced_whole(tracer: TraceWorker, tiny_models, tmp_path: Path) -> None:
    config = json.loads((tiny_models("llama") / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 8}))
    single = {"peft_type": "LORA", "r": 4, "target_modules": ["q_proj"], "layers_to_transform": [5]}
    asked = replace(make_request(tmp_path), method="", peft_config=single, fast=True)
    found = traced_memory(asked, tracer)
    assert not found.fast
    assert found.trainable_parameters == 4 * (32 + 32)


def test_gradients_that_wait_over_micro_batches_cost_room(tracer: TraceWorker, asked: TraceRequest) -> None:
    whole = replace(asked, method="full_finetuning", values={"learning_rate": 1e-4},
                    recipe=replace(asked.recipe, precision="pure_bf16", micro_batch_size=16))  # fmt: skip
    waiting = replace(whole, loop=replace(whole.loop, accumulates=True))
    assert tracer.ask(waiting).peak_allocated_bytes > tracer.ask(whole).peak_allocated_bytes


def setting(model: str, vram_gib: float | None = None, **how: object) -> Setting:
    vram = None if vram_gib is None else round(vram_gib * 2**30)
    return settle(model, "lora", Hardware(vram), **how)  # type: ignore[arg-type]


def test_a_crash_falls_back_to_the_closed_form_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("peftselect.memory.traces.shared_worker", lambda: TraceWorker(time_limit_seconds=0))
    found = price(setting("gpt2"), "fast")
    assert found.memory.source == "closed_form"
    assert found.note == "no trace (it took more than 0 s): this is the closed form"
    monkeypatch.setattr("peftselect.memory.traces.shared_worker", TraceWorker)
    monkeypatch.setattr(worker, "MODULE", "peftselect.no_such_module")
    assert (
        price(setting("gpt2"), "exact").note == "no trace (the tracing process died (exit 1)): this is the closed form"
    )
    assert found.memory.band.worst_percent >= 8
