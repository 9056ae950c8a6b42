"""Predicted against real peak memory on a CUDA machine, for random-initialised models (values do not change a peak).

    python benchmarks/measure_memory.py [--dry-run] [--only llama-3.2-1b] [--results FILE.jsonl]

Every combination of model, method, batch, length, checkpointing and base is predicted by a trace of all layers, and
then run for two real steps in a process of its own. Each result is appended at once, so that a machine that is lost
loses one result; what is already in the file is not run again. ``--dry-run`` predicts and records without a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from peftselect.base_models import resolve_base_model
from peftselect.memory.trace import NotTracedError, TraceRequest
from peftselect.memory.worker import trace_memory
from peftselect.method import ApplyContext, Recipe, resolve_values
from peftselect.plugin_manager import host
from peftselect.shapes import read_shape

#: catalogue name and head
MODELS = {
    "t5-base": "seq2seq_lm", "roberta-large": "sequence_classification", "llama-3.2-1b": "causal_lm",
    "llama-3.2-3b": "causal_lm", "llama-3.1-8b": "causal_lm",
}  # fmt: skip
METHODS = ("lora", "ia3", "prompt_tuning", "adapter_pfeiffer", "full_finetuning")
BATCHES, LENGTHS, TARGET = (1, 4), (128, 512), 64
BASES: tuple[Any, ...] = (None, "int8", "nf4")
RESULTS = Path(__file__).parent / "results" / "measured_memory.jsonl"


@dataclass(frozen=True)
class Case:
    """One cell of the grid."""

    model: str
    method: str
    batch: int
    length: int
    checkpointing: bool
    quantization: str | None

    def request(self) -> TraceRequest:
        """The cell as a question to the tracer."""
        config, head = dict(resolve_base_model(self.model).config), MODELS[self.model]
        method = host().method(self.method)
        values = resolve_values(method, read_shape(config, head))
        target = TARGET if head == "seq2seq_lm" else 0
        recipe = Recipe(
            "bf16", self.quantization, self.batch, 1, self.checkpointing, 1e-4, 1.0, self.length, target
        )  # type: ignore[arg-type]  # fmt: skip
        return TraceRequest(config, head, 2, False, self.method, values, recipe)


def grid(only: str | None = None) -> Iterator[Case]:
    """Every combination that the methods allow."""
    for model, name, *rest in itertools.product(MODELS, METHODS, BATCHES, LENGTHS, (False, True), BASES):
        method, case = host().method(name), Case(model, name, *rest)
        if only not in (None, model) or (case.checkpointing and not method.gradient_checkpointing):
            continue
        if case.quantization is None or method.quantized_base != "no":
            yield case


def predict(case: Case) -> dict[str, Any]:
    """What the trace says, or why there is none."""
    try:
        found = trace_memory(case.request())
    except NotTracedError as error:
        return {"not_traced": str(error)}
    return {
        "predicted_allocated_bytes": found.peak_allocated_bytes,
        "predicted_reserved_bytes": found.peak_reserved_bytes,
        "trainable_parameters": found.trainable_parameters,
    }


def measure(case: Case) -> dict[str, Any]:
    """Two real steps in a process of its own, so that nothing of another case is in memory."""
    command = [sys.executable, __file__, "--one", json.dumps(asdict(case))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        line = next(reversed(done.stderr.strip().splitlines()), "")
        return {"status": "oom" if "OutOfMemory" in done.stderr else "failed", "error": line[:200]}
    return {"status": "ok", **json.loads(done.stdout.splitlines()[-1])}


def run_one(case: Case) -> dict[str, Any]:
    """A short step and one at the longest length, on the first card (needs CUDA)."""
    import torch
    import transformers
    from accelerate.utils import convert_to_fp32

    from peftselect.memory.tracing.building import make_batch, prepended
    from peftselect.modeling import AUTO_CLASSES, DTYPES, autocast, quantization_config, train_in_float32

    request, method = case.request(), host().method(case.method)
    recipe, shape = request.recipe, read_shape(request.config, request.head)
    master = not method.saves_adapter
    config = transformers.AutoConfig.for_model(**request.config)
    config.use_cache, config.num_labels = False, 2
    config.pad_token_id = config.pad_token_id or 0
    loader = getattr(transformers, AUTO_CLASSES[request.head])
    made = loader.from_config(config, dtype=torch.float32 if master else DTYPES[recipe.precision])
    if recipe.quantization:
        import tempfile

        from peft import prepare_model_for_kbit_training

        with tempfile.TemporaryDirectory() as folder:
            made.save_pretrained(folder)
            packed = quantization_config(recipe, shape)
            model = loader.from_pretrained(folder, quantization_config=packed, device_map={"": 0}, dtype=torch.bfloat16)
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    else:
        model = made.to("cuda")
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = method.apply(
        model, request.values, ApplyContext(shape, "measure", 1000, quantized=bool(recipe.quantization))
    )
    train_in_float32(model)
    model.train().to("cuda")
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = method.optimizer(model, request.values) or torch.optim.AdamW(trained, fused=True)
    mixed = autocast(model, recipe)
    torch.cuda.reset_peak_memory_stats()
    for length in (request.loop.first_length, case.length):
        target = min(length, recipe.max_target_length)
        batch = make_batch(shape, case.batch, length, target, prepended(request), "cuda")
        if "attention_mask" in batch:
            batch["attention_mask"][0, -1] = 0  # padding, so that a mask is kept
        with torch.autocast("cuda", dtype=DTYPES[recipe.precision], enabled=mixed is not None):
            output = model(**batch)
        loss = (convert_to_fp32(output) if mixed else output)["loss"]
        del output
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return {
        "allocated_bytes": torch.cuda.max_memory_allocated(),
        "reserved_bytes": torch.cuda.max_memory_reserved(),
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }


def main(arguments: list[str]) -> int:
    """Predict, measure and append, case after case. The number of cases done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--dry-run", action="store_true")
    parser.add_argument("--only", choices=MODELS)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.one:
        print(json.dumps(run_one(Case(**json.loads(asked.one)))))
        return 1
    lines = asked.results.read_text().splitlines() if asked.results.is_file() else []
    known = {json.dumps(json.loads(line)["case"]) for line in lines}
    todo = [case for case in grid(asked.only) if json.dumps(asdict(case)) not in known]
    for case in todo[: asked.limit]:
        result = {"case": asdict(case), **predict(case)}
        result |= {"status": "planned"} if asked.dry_run else measure(case)
        with asked.results.open("a") as file:
            file.write(json.dumps(result) + "\n")
        print(json.dumps(result), flush=True)
    return len(todo[: asked.limit])


if __name__ == "__main__":
    main(sys.argv[1:])
