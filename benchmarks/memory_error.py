"""Predicted against measured peak memory, on the runs that the PEFT project publishes.

    python benchmarks/memory_error.py PEFT_METAMATHQA.csv

The runs fine-tune Llama-3.2-3B in bfloat16 (adapters float32, full fine-tuning pure bfloat16, AdamW working on lists,
the model's outputs held through the backward pass, key/value cache included), batch 4. Their longest padded batch is
not published: ONE length for all rows is fitted here, so the error says how well the closed form tells methods apart
and scales, not that it knows that length.
"""

from __future__ import annotations

import csv
import json
import statistics
import sys
from pathlib import Path
from typing import Any

from peftselect.base_models import resolve_base_model
from peftselect.memory.closed_form import estimate_memory
from peftselect.method import Method, Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.shape import ModelShape
from peftselect.shapes import read_shape

#: the published name of a method and the settings of ours which its configuration gives
METHODS = {
    "lora": ("lora", ("r", "lora_alpha", "lora_dropout", "use_rslora")),
    "ia3": ("ia3", ()),
    "prefix_tuning": ("prefix_tuning_peft", ("num_virtual_tokens", "prefix_projection", "encoder_hidden_size")),
    "prompt_tuning": ("prompt_tuning", ("num_virtual_tokens",)),
    "p_tuning": ("p_tuning", ("num_virtual_tokens", "encoder_hidden_size", "encoder_reparameterization_type")),
    "adalora": ("adalora", ("init_r", "target_r", "lora_alpha", "orth_reg_weight")),
    "full": ("full_finetuning", ()),
}
LENGTHS = range(560, 800)


def rows(file: Path) -> list[dict[str, str]]:
    """Published runs of the methods that this version has; variants of LoRA are priced as plain LoRA."""
    with file.open(newline="") as handle:
        return [row for row in csv.DictReader(handle) if row["method"] in METHODS and row["use_gc"] != "True"]


def settings(method: Method, shape: ModelShape, row: dict[str, str]) -> dict[str, Any]:
    """Our values for a published configuration."""
    config = json.loads(row["peft_config"] or "{}")
    known = {setting.name for setting in method.hyperparameters(shape)}
    chosen = {
        name: config[name] for name in METHODS[row["method"]][1] if name in known and config.get(name) is not None
    }
    targets = config.get("target_modules")
    if targets and "target_modules" in known:
        chosen["target_modules"] = targets if isinstance(targets, str) else ",".join(sorted(targets))
    return resolve_values(method, shape, chosen)


def predict(shape: ModelShape, row: dict[str, str], length: int) -> int:
    """Predicted peak in bytes of a published run at a padded length."""
    method = host().method(METHODS[row["method"]][0])
    values = settings(method, shape, row)
    full = method.name == "full_finetuning"
    recipe = Recipe("pure_bf16" if full else "bf16", None, 4, 1, False, 1e-4, 1.0, length, optimizer="adamw_foreach")
    return estimate_memory(shape, method, values, recipe, keeps_outputs=True).peak_bytes


def main(file: Path) -> dict[str, Any]:
    """Fit the one length, print the table, store it beside the other results."""
    shape = read_shape(resolve_base_model("llama-3.2-3b").config)
    measured = {row["experiment"]: int(row["peak_memory_reserved_bytes"]) for row in rows(file)}

    def errors(length: int) -> dict[str, float]:
        return {
            row["experiment"]: 100 * (predict(shape, row, length) / measured[row["experiment"]] - 1)
            for row in rows(file)
        }

    length = min(LENGTHS, key=lambda n: statistics.fmean(abs(error) for error in errors(n).values()))
    found = errors(length)
    sizes = [abs(error) for error in found.values()]
    report = {
        "runs": len(found),
        "fitted_length": length,
        "mean_absolute_error_percent": round(statistics.fmean(sizes), 2),
        "median_absolute_error_percent": round(statistics.median(sizes), 2),
        "worst_percent": round(max(found.values(), key=abs), 2),
        "errors_percent": {name: round(error, 2) for name, error in sorted(found.items())},
    }
    for name, error in sorted(found.items(), key=lambda item: item[1]):
        print(f"{name:62} {measured[name] / 2**30:7.2f} GiB  {error:+6.2f} %")
    print(
        f"{len(found)} runs, one length of {length} tokens: mean absolute error "
        f"{report['mean_absolute_error_percent']} %, median {report['median_absolute_error_percent']} %, "
        f"worst {report['worst_percent']:+} %"
    )
    return report


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    outcome = main(Path(sys.argv[1]))
    target = Path(__file__).parent / "results" / "memory_closed_form.json"
    target.write_text(json.dumps(outcome, indent=1) + "\n")
