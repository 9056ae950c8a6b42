"""The closed form against traces of the real training step, for architectures that no published run covers.

    python benchmarks/closed_form_vs_trace.py

A trace runs the real transformers and peft modules on fake tensors, logs every storage as CUDA's kernels would ask for
it, and needs neither weights nor a GPU. Compared is the peak of what is asked for in the second of two steps, without
the allocator's rounding and without the CUDA context. Base in bfloat16, adapters in float32, no autocast.
"""

from __future__ import annotations

import json
import statistics
import warnings
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
_ALLOWANCES = ("fragmentation", "workspace", "cuda_context")


def main() -> dict[str, Any]:
    """Print a row for each model and method, and the summary that is stored."""
    errors: dict[str, float] = {}
    for name, head, rows, length, target in QUESTIONS:
        config = dict(resolve_base_model(name).config)
        shape = read_shape(config, head)
        for method in (host().method(one) for one in METHODS):
            values = resolve_values(method, shape)
            precision: Any = "bf16" if method.saves_adapter else "pure_bf16"
            recipe = Recipe(precision, None, rows, 1, False, 1e-4, 1.0, length, target)
            parts = estimate_memory(shape, method, values, recipe).breakdown
            said = sum(size for part, size in parts.items() if part not in _ALLOWANCES)
            try:
                traced = trace(TraceRequest(config, head, 2, False, method.name, values, recipe))
            except Exception as error:  # a kernel that fake tensors cannot run is reported, and the rest goes on
                print(f"{name:26} {method.name:18} not traced: {str(error).splitlines()[0][:70]}", flush=True)
                continue
            error_percent = 100 * (said / traced.peak_bytes - 1)
            errors[f"{name} {method.name}"] = round(error_percent, 2)
            peak, closed = traced.peak_bytes / MIB, said / MIB
            figures = f"traced {peak:8.0f} MiB, closed form {closed:8.0f} MiB {error_percent:+6.1f} %"
            print(f"{name:26} {method.name:18} {figures}", flush=True)
    sizes = [abs(error) for error in errors.values()]
    summary = {
        "compared": len(errors),
        "mean_absolute_error_percent": round(statistics.fmean(sizes), 2),
        "median_absolute_error_percent": round(statistics.median(sizes), 2),
        "worst_percent": max(errors.values(), key=abs),
        "errors_percent": errors,
    }
    print({key: value for key, value in summary.items() if key != "errors_percent"})
    return summary


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    outcome = main()
    target = Path(__file__).parent / "results" / "closed_form_vs_trace.json"
    target.write_text(json.dumps(outcome, indent=1) + "\n")
