"""`recommend` traces the candidate it is about to recommend where the closed form could be wrong, and only there."""

from __future__ import annotations

import json
from typing import Any

import pytest

import peftselect
from peftselect.memory.closed_form import CUDA_CONTEXT_BYTES, MEASURED_BAND, MemoryEstimate
from peftselect.memory.trace import NotTracedError, TracedMemory
from peftselect.selector import confirmation
from peftselect.selector.confirmation import in_doubt

GIB = 2**30
QUESTION = {"task": "classification", "model": "bert-base-uncased", "method": "lora", "max_length": 256}


def memory(peak: float, **fields: Any) -> MemoryEstimate:
    parts = {"activations": round(peak * GIB), "cuda_context": CUDA_CONTEXT_BYTES}
    return MemoryEstimate(**{"peak_bytes": round(peak * GIB), "breakdown": parts, "band": MEASURED_BAND, **fields})


def test_doubt_is_where_the_band_reaches_the_other_answer() -> None:
    budget = 8 * GIB + CUDA_CONTEXT_BYTES
    assert not in_doubt(memory(7.0), budget)
    assert in_doubt(memory(7.9), budget)
    assert in_doubt(memory(8.5), budget)
    assert not in_doubt(memory(9.5), budget)
    assert not in_doubt(memory(7.9), None)
    assert not in_doubt(memory(7.9, source="fast_trace"), budget)


def tightest() -> float:
    """The budget in GiB at which LoRA's plain recipe on this question is in doubt."""
    plain = peftselect.recommend(**QUESTION, trace="never").candidates[0].memory
    budget = CUDA_CONTEXT_BYTES + round(1.085 * plain.peak_bytes)
    assert in_doubt(plain, budget)
    return budget / GIB


def test_a_candidate_in_doubt_is_traced_and_the_answer_says_so(peftselect: Any) -> None:
    words = [word for name, value in QUESTION.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    question = ("recommend", *words, "--vram", f"{tightest():.6f}", "--json")
    sources = {}
    for option in ((), ("--no-trace",), ("--trace",)):
        done = peftselect(*question, *option)
        assert (done.returncode, done.stderr) == (0, "")
        sources[option] = json.loads(done.stdout)["recommended"]["memory"]["source"]
    assert sources == {(): "fast_trace", ("--no-trace",): "closed_form", ("--trace",): "fast_trace"}
    roomy = peftselect("recommend", *words, "--vram", "40", "--json")
    assert json.loads(roomy.stdout)["recommended"]["memory"]["source"] == "closed_form"


@pytest.fixture
def tracing(monkeypatch: pytest.MonkeyPatch):
    """Traces that come to so many times the closed form's peak, without a process."""

    def times(factor: float) -> list[int]:
        asked: list[int] = []

        def trace(setting: Any, mode: str) -> TracedMemory:
            from peftselect.memory.closed_form import estimate_memory

            asked.append(setting.recipe.micro_batch_size)
            closed = estimate_memory(setting.shape, setting.method, setting.values, setting.recipe)
            peak = round(factor * closed.peak_bytes)
            return TracedMemory(peak, peak, peak, {"activations": peak}, 1, 1, 1, 0.0, fast=True)

        monkeypatch.setattr(confirmation, "trace_setting", trace)
        return asked

    return times


def test_a_trace_that_does_not_fit_leads_to_a_smaller_recipe(tracing: Any) -> None:
    asked = tracing(1.3)
    budget = tightest()
    first = peftselect.recommend(**QUESTION, vram_gib=budget).candidates[0]
    assert asked[0] > asked[1] == first.candidate.recipe.micro_batch_size
    assert first.memory.source == "fast_trace"
    assert first.verdict.fits
    assert f"--vram {budget:.3g}"[:8] in first.command


def test_what_fits_in_no_form_is_excluded_with_the_traced_figure(tracing: Any) -> None:
    tracing(50.0)
    answer = peftselect.recommend(**QUESTION, vram_gib=tightest())
    assert not answer.candidates
    (left_out,) = answer.excluded
    assert left_out.constraint == "memory"


def test_a_trace_that_cannot_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> TracedMemory:
        raise NotTracedError("the tracing process died (signal 11)")

    monkeypatch.setattr(confirmation, "trace_setting", refuse)
    answer = peftselect.recommend(**QUESTION, vram_gib=tightest())
    assert answer.candidates[0].memory.source == "closed_form"
    assert any("could not be traced (the tracing process died (signal 11))" in note for note in answer.notes)


def test_a_way_to_trace_that_there_is_not_is_refused() -> None:
    with pytest.raises(peftselect.InputError, match="unknown way to trace 'perhaps'"):
        peftselect.recommend(**QUESTION, trace="perhaps")
