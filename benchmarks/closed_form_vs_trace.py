"""The closed form against traces of the real training step, for architectures that no published run covers.

    python benchmarks/closed_form_vs_trace.py

A trace runs the real transformers and peft modules on fake tensors, logs every storage as CUDA's kernels would ask for
it, and needs neither weights nor a GPU. Compared is the peak of what is asked for in the second of two steps, without
the allocator's rounding and without the CUDA context. Every model and method with the base in bfloat16, adapters in
float32 and no autocast; five of the models also under other recipes: quantised bases, checkpointing, float16, float32,
float32 master weights and other optimizers.
"""

from __future__ import annotations

import json
import statistics
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from peftselect.base_models import resolve_base_model
from peftselect.memory.closed_form import MIB, estimate_memory
from peftselect.memory.trace import TraceRequest
from peftselect.memory.tracing.answer import trace
from peftselect.method import Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape

METHODS = ("lora", "ia3", "prompt_tuning", "p_tuning", "full_finetuning")
#: catalogue name, head, micro-batch, input and output tokens
QUESTIONS = (
    ("flan-t5-base", "seq2seq_lm", 8, 512, 128),
    ("bart-base", "seq2seq_lm", 8, 512, 128),
    ("roberta-base", "sequence_classification", 16, 256, 0),
    ("distilbert-base-uncased", "token_classification", 16, 256, 0),
    ("bert-large-uncased", "question_answering", 8, 384, 0),
    ("gpt2-medium", "causal_lm", 4, 512, 0),
    ("pythia-410m", "causal_lm", 4, 512, 0),
    ("llama-3.2-1b", "causal_lm", 2, 512, 0),
    ("qwen2.5-0.5b", "causal_lm", 2, 512, 0),
)
#: recipes beside the plain one, for the models of OTHERS: method, and what differs
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "int8": ("lora", {"quantization": "int8"}),
    "int8, checkpointed": ("lora", {"quantization": "int8", "gradient_checkpointing": True}),
    "nf4": ("lora", {"quantization": "nf4"}),
    "nf4, checkpointed": ("lora", {"quantization": "nf4", "gradient_checkpointing": True}),
    "checkpointed": ("lora", {"gradient_checkpointing": True}),
    "fp16": ("lora", {"precision": "fp16"}),
    "fp32": ("lora", {"precision": "fp32"}),
    "masters": ("full_finetuning", {}),
    "masters, checkpointed": ("full_finetuning", {"gradient_checkpointing": True}),
    "masters, adafactor": ("full_finetuning", {"optimizer": "adafactor"}),
    "adafactor": ("full_finetuning", {"precision": "pure_bf16", "optimizer": "adafactor"}),
    "masters, adamw_8bit": ("full_finetuning", {"optimizer": "adamw_8bit"}),
    "adamw_foreach": ("full_finetuning", {"precision": "pure_bf16", "optimizer": "adamw_foreach"}),
}
OTHERS = ("flan-t5-base", "bart-base", "roberta-base", "gpt2-medium", "llama-3.2-1b")
_ALLOWANCES = ("fragmentation", "workspace", "cuda_context")
Question = tuple[str, str, int, int, int]


def compare(question: Question, method_name: str, **changes: Any) -> float | None:
    """The closed form's error against a trace in percent, printed with both; None where there is no trace."""
    name, head, rows, length, target = question
    config = dict(resolve_base_model(name).config)
    method, shape = host().method(method_name), read_shape(config, head)
    values = resolve_values(method, shape)
    recipe = replace(Recipe("bf16", None, rows, 1, False, 1e-4, 1.0, length, target), **changes)
    parts = estimate_memory(shape, method, values, recipe).breakdown
    said = sum(size for part, size in parts.items() if part not in _ALLOWANCES)
    try:
        traced = trace(TraceRequest(config, head, 2, False, method.name, values, recipe))
    except Exception as error:  # a kernel that fake tensors cannot run is reported, and the rest goes on
        print(f"{name:26} {method.name:18} not traced: {str(error).splitlines()[0][:70]}", flush=True)
        return None
    off = 100 * (said / traced.peak_bytes - 1)
    figures = f"traced {traced.peak_bytes / MIB:8.0f} MiB, closed form {said / MIB:8.0f} MiB {off:+6.1f} %"
    print(f"{name:26} {method.name:18} {figures}", *changes.values(), flush=True)
    return round(off, 2)


def summary(errors: Mapping[str, float]) -> dict[str, Any]:
    """How large the errors are, in percent."""
    sizes = [abs(error) for error in errors.values()]
    return {
        "compared": len(errors),
        "mean_absolute_error_percent": round(statistics.fmean(sizes), 2),
        "median_absolute_error_percent": round(statistics.median(sizes), 2),
        "worst_under_percent": min(errors.values()),
        "worst_over_percent": max(errors.values()),
        "errors_percent": dict(errors),
    }


def main() -> dict[str, Any]:
    """Print a row for each model and method, and for each recipe; return the summaries that are stored."""
    plain: dict[str, float | None] = {}
    other: dict[str, float | None] = {}
    for question in QUESTIONS:
        for method in METHODS:
            pure = {} if host().method(method).saves_adapter else {"precision": "pure_bf16"}
            plain[f"{question[0]} {method}"] = compare(question, method, **pure)
        if question[0] in OTHERS:
            for name, (method, changes) in RECIPES.items():
                other[f"{question[0]} {method}: {name}"] = compare(question, method, **changes)
    found = {
        kind: summary({name: error for name, error in errors.items() if error is not None})
        for kind, errors in (("bf16", plain), ("other_recipes", other))
    }
    for kind, figures in found.items():
        print(kind, {key: value for key, value in figures.items() if key != "errors_percent"})
    return found


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    outcome = main()
    target = Path(__file__).parent / "results" / "closed_form_vs_trace.json"
    target.write_text(json.dumps(outcome, indent=1) + "\n")
