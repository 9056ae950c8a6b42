"""Runs of the PEFT project's method comparison: the JSON that its scripts write, or a CSV that sums many of them up.

A document has three parts: ``run_info`` (when, which settings, which PEFT configuration, the error if there was one),
``train_info`` (memory and time, parameters, the status, metrics by step; the last of them on the test set) and
``meta_info`` (versions, the device). Scores are fractions, peak memory is what the caching allocator reserved.
"""

from __future__ import annotations

import csv
import json
from typing import TYPE_CHECKING, Any

from peftselect import vocabulary
from peftselect.errors import DataError, InputError
from peftselect.record import RunRecord, Score, Status

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

MATH, IMAGES = "MetaMathQA", "image generation"
PROJECT = "PEFT project"
SOURCE = f"{PROJECT}, method comparison ({MATH})"
PARTS = ("run_info", "train_info", "meta_info")
COLUMNS = (
    "experiment", "method", "peft_config", "max_steps", "batch_size", "lr", "use_gc", "test_accuracy", "forgetting",
    "trainable_params", "total_params", "checkpoint_bytes", "peak_memory_reserved_bytes",
    "memory_reserved_p99_bytes", "memory_reserved_avg_bytes", "train_seconds", "device", "torch", "transformers",
    "peft", "created_at",
)  # fmt: skip
#: variants of LoRA that the published name tells, not the configuration
VARIANTS = {
    "bdlora": "bdlora", "kasa": "kasa", "lorafa": "lora_fa", "mica": "mica", "riemannian": "riemannian_lora",
    "velora": "velora",
}  # fmt: skip
#: the parts of a configuration that say nothing of the method
_NO_SETTINGS = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_version", "revision", "task_type",
}  # fmt: skip
_PRECISIONS = {"bfloat16": "bf16", "float16": "fp16", "float32": "fp32"}
_TESTED, _HINT = "test ", "see benchmarks/README.md for what can be imported"


def is_document(document: Mapping[str, Any]) -> bool:
    """Whether a JSON object looks like one of the project's results."""
    return any(part in document for part in PARTS)


def read_summary(file: Path) -> list[RunRecord]:
    """The records of a CSV with a row for each run (MetaMathQA); DataError names the line that is wrong."""
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            reader = csv.DictReader(stream, strict=True)
            rows = [(reader.line_num, row) for row in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read ({error})", _HINT) from error
    records = []
    for line, row in rows:
        try:
            records.append(_from_row(row))
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(f"{file}, line {line}: the row is malformed ({_why(error)})", _HINT) from error
    return records


def _from_row(row: Mapping[str, str]) -> RunRecord:
    total, trainable = int(row["total_params"]), int(row["trainable_params"])
    return RunRecord(
        source=SOURCE,
        status="ok",
        problem=_math("llama-3.2-3b", 3_212_749_824, 768),
        candidate=_candidate(
            row["experiment"],
            json.loads(row["peft_config"]) if row["peft_config"] else None,
            {
                "precision": "bf16",
                "learning_rate": float(row["lr"]),
                "micro_batch_size": int(row["batch_size"]),
                "gradient_checkpointing": row["use_gc"] == "True",
                "max_length": 768,
            },
            (trainable, total),
            row["method"],
        ),
        metric="accuracy",
        scores={"accuracy": Score(float(row["test_accuracy"]))},
        measured={
            "peak_memory_bytes": int(row["peak_memory_reserved_bytes"]),
            "memory_reserved_p99_bytes": int(row["memory_reserved_p99_bytes"]),
            "memory_reserved_avg_bytes": int(row["memory_reserved_avg_bytes"]),
            "train_seconds": float(row["train_seconds"]),
            "steps": int(row["max_steps"]),
            "adapter_bytes": int(row["checkpoint_bytes"]),
            "trainable_parameters": trainable,
            "total_parameters": total,
            "forgetting": float(row["forgetting"]),
        },
        environment={name: row[name] for name in ("torch", "transformers", "peft", "device")},
        created_at=row["created_at"],
        note=row["experiment"],
    )


def from_document(document: Mapping[str, Any], where: str) -> RunRecord:
    """One result as a record; DataError names ``where`` and the part that is missing or wrong."""
    if missing := [part for part in PARTS if not isinstance(document.get(part), dict)]:
        raise DataError(f"{where}: there is no {missing[0]}", "a result has run_info, train_info and meta_info")
    try:
        return _record(document["run_info"], document["train_info"], document["meta_info"], where)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        raise DataError(f"{where}: the result is malformed ({_why(error)})", _HINT) from error


def _record(run: Mapping[str, Any], trained: Mapping[str, Any], meta: Mapping[str, Any], where: str) -> RunRecord:
    settings, experiment = run["train_config"], run["experiment_name"].replace("/", "--")
    status = _status(trained["status"], run.get("error_msg") or "")
    last: Mapping[str, Any] = next(
        (item for item in reversed(trained["metrics"]) if any(key.startswith(_TESTED) for key in item)), {}
    )
    scores = {
        vocabulary.metric_name(key.removeprefix(_TESTED).replace(" ", "_")): Score(float(value))
        for key, value in last.items()
        if key.startswith(_TESTED)
    }
    if status == "ok" and not scores:
        raise DataError(f"{where}: it says success, but has no score on the test set", "give the whole result")
    counts = (int(trained["num_trainable_params"]), int(trained["num_total_params"]))
    packages = meta["package_info"]
    system = meta.get("system_info", {})
    return RunRecord(
        source=f"{PROJECT}, method comparison ({IMAGES if 'resolution' in settings else MATH})",
        status=status,
        problem=_problem(settings, counts),
        candidate=_candidate(experiment, _settings(run.get("peft_config")), _recipe(settings), counts),
        metric=next(iter(scores), None),
        scores=scores if status == "ok" else {},
        measured=_measured(trained, last, counts),
        environment={
            **{name: packages[f"{name}-version"] for name in ("torch", "transformers", "peft")},
            "device": system.get("accelerator") or system.get("gpu") or "",
        },
        seed=settings.get("seed"),
        created_at=run["created_at"],
        note="; ".join(filter(None, (experiment, (run.get("error_msg") or "").strip().split("\n")[-1]))),
    )


def _status(written: str, error: str) -> Status:
    if written == "success":
        return "ok"
    return "oom" if "out of memory" in error.lower() else "failed"


def _problem(settings: Mapping[str, Any], counts: tuple[int, int]) -> dict[str, Any]:
    model = settings["model_id"].rpartition("/")[2].lower()
    if "resolution" in settings:
        return {
            "task": "image_generation",
            "family": "image_generation",
            "modality": "image",
            "dataset": settings["dataset_id"].rpartition("/")[2],
            "regime": "low",
            "model": model,
            "total_parameters": counts[1],
            "scale": "fraction",
        }
    return _math(model, counts[1], settings["max_seq_length"])


def _math(model: str, parameters: int, max_length: int) -> dict[str, Any]:
    return {
        "task": "math_reasoning",
        "family": vocabulary.task_family("math_reasoning"),
        "modality": "text",
        "dataset": "metamathqa_gsm8k",
        "regime": "high",
        "model": model,
        **vocabulary.model_facts(model),
        "total_parameters": parameters,
        "max_length": max_length,
        "scale": "fraction",
    }


def _candidate(
    experiment: str,
    settings: Mapping[str, Any] | None,
    recipe: Mapping[str, Any],
    counts: tuple[int, int],
    written: str = "",
) -> dict[str, Any]:
    """``counts``: parameters trained and in all. A summary has the method as ``written``; a result, in its settings."""
    known = settings or {}
    name = written or str(known.get("peft_type") or experiment.partition("--")[0]).lower()
    if known.get("use_dora"):
        name = "dora"
    variant = VARIANTS.get(experiment.rpartition("-")[2], name)
    facts = {
        "method": vocabulary.method_name(variant),
        "method_as_written": written or name,
        "hyperparameters": settings,
        "recipe": dict(recipe),
        "trainable_parameters": counts[0],
        "trainable_percent": round(100 * counts[0] / counts[1], 6),
    }
    return {name: value for name, value in facts.items() if value is not None}


def _settings(config: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if config is None:
        return None
    return {name: value for name, value in config.items() if name not in _NO_SETTINGS and value not in (None, {})}


def _recipe(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = {
        "precision": _PRECISIONS.get(settings["dtype"], settings["dtype"]),
        "learning_rate": settings["optimizer_kwargs"].get("lr"),
        "micro_batch_size": settings["batch_size"],
        "gradient_checkpointing": bool(settings.get("use_gc", False)),
        "max_length": settings.get("max_seq_length"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _measured(trained: Mapping[str, Any], last: Mapping[str, Any], counts: tuple[int, int]) -> dict[str, Any]:
    def memory(what: str) -> Any:
        # the project renamed these when it learned of devices other than CUDA's
        return trained.get(f"accelerator_memory_{what}", trained.get(f"cuda_memory_{what}"))

    found = {
        "peak_memory_bytes": memory("max"),
        "memory_reserved_p99_bytes": memory("reserved_99th"),
        "memory_reserved_avg_bytes": memory("reserved_avg"),
        "train_seconds": trained["train_time"],
        "steps": last.get("step"),
        "adapter_bytes": trained["file_size"],
        "trainable_parameters": counts[0],
        "total_parameters": counts[1],
        "forgetting": last.get("forgetting"),
        "drift": last.get("drift"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _why(error: Exception) -> str:
    return f"{error.args[0]!r} is missing" if isinstance(error, KeyError) else str(error)
