"""The tracing process: ``python -m peftselect.memory.tracing.worker REQUEST.json ANSWER.json``."""

from __future__ import annotations

import json
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from peftselect.memory.allocator import replay, smallest_capacity
from peftselect.memory.trace import NotTracedError, TracedMemory, TraceRequest
from peftselect.memory.tracing.optimizers import make_optimizer
from peftselect.memory.tracing.step import Batch, Trace, TracedModel, trace_steps
from peftselect.method import ApplyContext, Method, Recipe
from peftselect.modeling import AUTO_CLASSES, DTYPES, autocast, train_in_float32
from peftselect.plugin_manager import host
from peftselect.shape import ModelShape
from peftselect.shapes import read_shape

#: cuBLAS keeps a workspace from its first product on (8.125 MiB on current cards)
WORKSPACE_BYTES = round(8.125 * 2**20)
#: tokens of the first, short step, after which the optimizer has its states
SHORT = 16


def answer(request: TraceRequest) -> TracedMemory:
    """Trace two steps and replay them through the allocator."""
    started = time.perf_counter()
    traced = trace(request)
    events = traced.log.events
    whole = replay(events, workspace_bytes=WORKSPACE_BYTES)
    return TracedMemory(
        peak_allocated_bytes=whole.peak_allocated,
        peak_reserved_bytes=whole.peak_reserved,
        smallest_capacity_bytes=smallest_capacity(events, WORKSPACE_BYTES),
        breakdown=traced.breakdown,
        trainable_parameters=traced.trainable_parameters,
        total_parameters=traced.total_parameters,
        seconds=round(time.perf_counter() - started, 2),
    )


def trace(request: TraceRequest) -> Trace:
    """Trace a short step and one at the recipe's longest length."""
    recipe, method = request.recipe, host().method(request.method)
    shape = read_shape(request.config, request.head, request.num_labels, new_pooler=request.new_pooler)
    if recipe.quantization:
        raise NotTracedError(f"a base in {recipe.quantization} has no kernels on fake tensors")
    before = method.prepended_positions(request.values)
    lengths = ((SHORT, min(SHORT, recipe.max_target_length or SHORT)), (recipe.max_length, recipe.max_target_length))

    def batches(device: str) -> Sequence[Batch]:
        return [_batch(shape, recipe.micro_batch_size, *sizes, before, device) for sizes in lengths]

    def build(device: str) -> TracedModel:
        model = _model(request, shape, method, device)
        if mixed := autocast(model, recipe):
            raise NotTracedError(f"mixed precision ({mixed} over float32 weights) is not traced")
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = make_optimizer(recipe.optimizer, trained)
        return TracedModel(model, optimizer, vocabulary=shape.vocab_size, keeps_outputs=request.keeps_outputs)

    return trace_steps(build, batches, padded=request.padded)


def _model(request: TraceRequest, shape: ModelShape, method: Method, device: str) -> Any:
    """The model as ``run`` would load it, from its configuration alone, with the method applied."""
    import transformers
    from transformers.initialization import no_init_weights

    recipe = request.recipe
    settings = {key: value for key, value in request.config.items() if key != "model_type"}
    config = transformers.AutoConfig.for_model(request.config["model_type"], **settings)
    config.num_labels = 2 if shape.head.kind == "question_answering" else max(request.num_labels, 1)
    config.use_cache = request.keeps_outputs
    if shape.architecture == "encoder-decoder" and getattr(config, "decoder_start_token_id", None) is None:
        config.decoder_start_token_id = 0
    if config.pad_token_id is None:
        config.pad_token_id = 0
    master = not method.saves_adapter and recipe.precision != "pure_bf16"
    dtype = torch.float32 if master else DTYPES[recipe.precision]
    loader = getattr(transformers, AUTO_CLASSES[shape.head.kind])
    with no_init_weights(), torch.device(device):
        model = loader.from_config(config, dtype=dtype)
    model.tie_weights()
    if recipe.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    model = method.apply(model, request.values, ApplyContext(shape, "trace", 1000))
    if recipe.precision != "pure_bf16":
        train_in_float32(model)
    return model


def _batch(shape: ModelShape, rows: int, length: int, target: int, before: int, device: str) -> Batch:
    def ids(*size: int) -> torch.Tensor:
        return torch.zeros(size, dtype=torch.long, device=device)

    head = shape.head.kind
    if head == "causal_lm":
        length += target
    choices = (shape.head.num_labels or 2,) if head == "multiple_choice" else ()
    inputs = ids(rows, *choices, length)
    batch = {"input_ids": inputs, "attention_mask": torch.ones_like(inputs)}
    if head == "question_answering":
        return {**batch, "start_positions": ids(rows), "end_positions": ids(rows)}
    if head in ("sequence_classification", "multiple_choice"):
        return {**batch, "labels": ids(rows)}
    if head == "token_classification":
        return {**batch, "labels": ids(rows, before + length)}
    return {**batch, "labels": ids(rows, target if head == "seq2seq_lm" else length)}


def read_request(document: Mapping[str, Any]) -> TraceRequest:
    """A request from its JSON form; lists become tuples again, which is what methods expect."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in document["values"].items()}
    return TraceRequest(**{**document, "values": values, "recipe": Recipe(**document["recipe"])})


def main(question: Path, target: Path) -> None:
    """Read the request, write the answer or, in one line, why there is none."""
    warnings.filterwarnings("ignore")
    try:
        document = asdict(answer(read_request(json.loads(question.read_text(encoding="utf-8")))))
    except NotTracedError as error:
        document = {"error": str(error)}
    except Exception as error:  # an operation that fake tensors cannot do may fail in any way
        lines = str(error).strip().splitlines() or [""]
        document = {"error": f"{type(error).__name__}: {lines[0][:160]}"}
    target.write_text(json.dumps(document), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
