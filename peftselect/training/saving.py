"""What a run leaves behind: the adapter in peft's own format (or a whole model), and the code that loads it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from peftselect.modeling import AUTO_CLASSES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from peftselect.method import Candidate
    from peftselect.problem import Problem

_DTYPES = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "pure_bf16": "bfloat16"}


def save_model(model: Any, processors: Iterable[Any], folder: Path) -> None:
    """The adapter (or, where the method trains the base itself, the model), its tokenizer and feature extractor."""
    arguments: dict[str, Any] = {}
    if hasattr(model, "peft_config"):
        # otherwise peft asks a hub whether the vocabulary has grown; it never grows here
        arguments = {"save_embedding_layers": False}
    with torch.no_grad():
        model.eval().save_pretrained(folder, **arguments)
    for processor in processors:
        processor.save_pretrained(folder)


def loading_code(
    problem: Problem,
    candidate: Candidate,
    labels: Sequence[str],
    folder: Path,
    *,
    own_tuner: bool = False,
    leaves: str = "",
    base: str = "",
) -> str:
    """Python that loads the result with plain transformers and peft: ``model`` and ``tokenizer``, ready to predict.

    A model that hears has a ``feature_extractor`` beside the tokenizer, or in its place.

    ``own_tuner``: the adapter is of a tuner that peft alone does not know, and is loaded through peftselect.
    ``leaves`` says what lies in the folder ("adapter", "model", "nothing"; what the method saves, if empty), ``base``
    where the adapter's base lies, if a stage has changed it.
    """
    loader = AUTO_CLASSES[problem.shape.head.kind]
    leaves = leaves or ("adapter" if candidate.method.saves_adapter else "model")
    where = problem.model.load_from if leaves == "nothing" else str(folder.absolute())
    processors = _processors(problem)
    loaded = [f"{name} = {cls}.from_pretrained({where!r})" for name, cls in processors.items()]
    if leaves != "adapter":
        return "\n".join(
            (
                f"from transformers import {', '.join([loader, *processors.values()])}",
                "",
                f"model = {loader}.from_pretrained({where!r}).eval()",
                *loaded,
            )
        )
    names = [loader, *processors.values()]
    arguments = [f"dtype={_DTYPES[candidate.recipe.precision]!r}", *_head_arguments(problem, labels)]
    if candidate.recipe.quantization:
        names.append("BitsAndBytesConfig")
        arguments.append(f"quantization_config={_quantization(problem, candidate)}")
    lines = [
        "import peftselect" if own_tuner else "from peft import PeftModel",
        f"from transformers import {', '.join(names)}",
        "",
        f"base = {loader}.from_pretrained(",
        f"    {(base or problem.model.load_from)!r},",
        *(f"    {argument}," for argument in arguments),
        ")",
        f"model = peftselect.load({where!r}, base)"
        if own_tuner
        else f"model = PeftModel.from_pretrained(base, {where!r}).eval()",
        *loaded,
    ]
    if problem.shape.architecture == "decoder" and problem.shape.head.kind == "sequence_classification":
        lines.append("model.config.pad_token_id = base.config.pad_token_id = tokenizer.pad_token_id")
    return "\n".join(lines)


def _processors(problem: Problem) -> dict[str, str]:
    """What prepares the model's input and reads its output, by the name it gets in the snippet."""
    shape = problem.shape
    found = {"feature_extractor": "AutoFeatureExtractor"} if shape.audio else {}
    return found if shape.head.kind in ("audio_classification", "ctc") else {"tokenizer": "AutoTokenizer", **found}


def _head_arguments(problem: Problem, labels: Sequence[str]) -> list[str]:
    kind = problem.shape.head.kind
    if kind == "ctc":
        return [f"vocab_size={len(labels)}", "pad_token_id=0", "ctc_loss_reduction='mean'"]
    if kind not in ("sequence_classification", "token_classification", "audio_classification"):
        return []
    if len(labels) == 1:
        return ["num_labels=1", "problem_type='regression'"]
    return [f"id2label={dict(enumerate(labels))!r}", f"label2id={ {name: i for i, name in enumerate(labels)}!r}"]


def _quantization(problem: Problem, candidate: Candidate) -> str:
    skipped = [*problem.shape.head.modules, "pooler"] if problem.shape.head.modules else None
    if candidate.recipe.quantization == "int8":
        return f"BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules={skipped!r})"
    dtype = _DTYPES[candidate.recipe.precision]
    return (
        "BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, "
        f"bnb_4bit_compute_dtype={dtype!r}, llm_int8_skip_modules={skipped!r})"
    )
