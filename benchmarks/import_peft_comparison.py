"""Convert runs of the PEFT project's method comparison (a CSV, one row a run) into run records.

    python -m peftselect.benchmarks.import_peft_comparison peft_metamathqa.csv [FOLDER]

The runs fine-tune Llama-3.2-3B on MetaMathQA (bf16, sequences of at most 768 tokens) and test on GSM8K; accuracy is a
fraction, peak memory is what the CUDA caching allocator reserved.
"""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

from peftselect import vocabulary
from peftselect.record import RunRecord, Score

SOURCE = "PEFT project, method comparison (MetaMathQA)"
MODEL = "llama-3.2-3b"
#: variants of LoRA that the published name tells, not the configuration
VARIANTS = {"bdlora": "bdlora", "lorafa": "lora_fa", "mica": "mica"}
Row = dict[str, str]


def convert(rows: list[Row]) -> list[RunRecord]:
    """One record a row."""
    return [record(row) for row in rows]


def record(row: Row) -> RunRecord:
    """A row as a record; the published name of the run is kept as its note."""
    return RunRecord(
        source=SOURCE,
        status="ok",
        problem={
            "task": "math_reasoning",
            "family": vocabulary.task_family("math_reasoning"),
            "modality": "text",
            "dataset": "metamathqa_gsm8k",
            "regime": "high",
            "model": MODEL,
            **vocabulary.model_facts(MODEL),
            "total_parameters": 3_212_749_824,
            "max_length": 768,
            "scale": "fraction",
        },
        candidate=_candidate(row),
        metric="accuracy",
        scores={"accuracy": Score(float(row["test_accuracy"]))},
        measured={
            "peak_memory_bytes": int(row["peak_memory_reserved_bytes"]),
            "memory_reserved_p99_bytes": int(row["memory_reserved_p99_bytes"]),
            "memory_reserved_avg_bytes": int(row["memory_reserved_avg_bytes"]),
            "train_seconds": float(row["train_seconds"]),
            "steps": int(row["max_steps"]),
            "adapter_bytes": int(row["checkpoint_bytes"]),
            "trainable_parameters": int(row["trainable_params"]),
            "total_parameters": int(row["total_params"]),
            "forgetting": float(row["forgetting"]),
        },
        environment={name: row[name] for name in ("torch", "transformers", "peft", "device")},
        created_at=row["created_at"],
        note=row["experiment"],
    )


def _candidate(row: Row) -> dict[str, Any]:
    variant = VARIANTS.get(row["experiment"].rpartition("-")[2], row["method"])
    total, trainable = int(row["total_params"]), int(row["trainable_params"])
    facts = {
        "method": vocabulary.method_name(variant),
        "method_as_written": row["method"],
        "hyperparameters": json.loads(row["peft_config"]) if row["peft_config"] else None,
        "recipe": {
            "precision": "bf16",
            "learning_rate": float(row["lr"]),
            "micro_batch_size": int(row["batch_size"]),
            "gradient_checkpointing": row["use_gc"] == "True",
            "max_length": 768,
        },
        "trainable_parameters": trainable,
        "trainable_percent": round(100 * trainable / total, 6),
    }
    return {name: value for name, value in facts.items() if value is not None}


def write(records: list[RunRecord], folder: Path) -> None:
    """One JSON-lines file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(item.to_json(), ensure_ascii=False, sort_keys=True) for item in records]
    (folder / "runs.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    target = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(__file__).parent / "results" / "peft_metamathqa"
    with Path(sys.argv[1]).open(encoding="utf-8", newline="") as stream:
        write(convert(list(csv.DictReader(stream))), target)
