"""Traced against measured peak memory, on the runs that the PEFT project publishes (see memory_error.py).

    python benchmarks/trace_error.py PEFT_METAMATHQA.csv

Each run is traced at two lengths and interpolated, since what is allocated grows linearly with the length. ONE length
for all rows is fitted, on the plain LoRA run of rank 32 alone; its own error is therefore 0 and is left out of the
figures. Like the published script, the traced loop holds on to the outputs and lets the model build a cache.
"""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path
from typing import Any

from memory_error import METHODS, rows, settings

from peftselect.base_models import resolve_base_model
from peftselect.memory.trace import Loop, NotTracedError, TraceRequest
from peftselect.memory.worker import trace_memory
from peftselect.method import Recipe
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape

FITTED_ON = "lora--llama-3.2-3B-rank32"
LENGTHS = (600, 760)
BATCH = 4


def peaks(row: dict[str, str]) -> tuple[float, float]:
    """(bytes at length 0, bytes a token of length) of a published run, from traces at two lengths."""
    config = dict(resolve_base_model("llama-3.2-3b").config)
    shape, method = read_shape(config), host().method(METHODS[row["method"]][0])
    values = settings(method, shape, row)
    precision: Any = "bf16" if method.saves_adapter else "pure_bf16"
    found = []
    for length in LENGTHS:
        recipe = Recipe(precision, None, BATCH, 1, False, 1e-4, 1.0, length, optimizer="adamw_foreach")
        request = TraceRequest(
            config, "causal_lm", 2, False, method.name, values, recipe, loop=Loop(keeps_outputs=True)
        )
        found.append(trace_memory(request).peak_allocated_bytes)
    slope = (found[1] - found[0]) / (LENGTHS[1] - LENGTHS[0])
    return found[0] - slope * LENGTHS[0], slope


def main(file: Path) -> dict[str, Any]:
    """Trace every row, fit the length on one, print the rest."""
    lines: dict[str, tuple[float, float]] = {}
    measured: dict[str, int] = {}
    for row in rows(file):
        try:
            lines[row["experiment"]] = peaks(row)
            measured[row["experiment"]] = int(row["peak_memory_reserved_bytes"])
        except NotTracedError as error:
            print(f"{row['experiment']:62} not traced: {error}")
    start, slope = lines[FITTED_ON]
    length = (measured[FITTED_ON] - start) / slope
    errors = {
        name: round(100 * ((base + each * length) / measured[name] - 1), 2)
        for name, (base, each) in lines.items()
        if name != FITTED_ON
    }
    for name, error in sorted(errors.items(), key=lambda item: item[1]):
        print(f"{name:62} {measured[name] / 2**30:7.2f} GiB  {error:+6.2f} %")
    sizes = [abs(error) for error in errors.values()]
    summary = {
        "runs": len(errors),
        "fitted_length": round(length, 1),
        "mean_absolute_error_percent": round(statistics.fmean(sizes), 2),
        "median_absolute_error_percent": round(statistics.median(sizes), 2),
        "worst_percent": max(errors.values(), key=abs),
    }
    print(summary)
    return {**summary, "errors_percent": errors}


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    outcome = main(Path(sys.argv[1]))
    target = Path(__file__).parent / "results" / "trace.json"
    target.write_text(json.dumps(outcome, indent=1) + "\n")
