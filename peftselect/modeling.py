"""From a candidate to a model that can be trained: tokenizer, base model, head, precision, method.

Whoever trains passes :func:`autocast` of the result to its Trainer: adapters in float32 over a base in 16 bits need
none, everything else does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import transformers
from safetensors import SafetensorError

from peftselect.errors import InputError, UnsupportedError
from peftselect.method import ApplyContext
from peftselect.processors import FIX, first_line, fit_tokenizer, load_processors

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from peftselect.method import Candidate, Method, Recipe
    from peftselect.problem import BaseModel, Problem
    from peftselect.shape import ModelShape

AUTO_CLASSES = {
    "causal_lm": "AutoModelForCausalLM",
    "seq2seq_lm": "AutoModelForSeq2SeqLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
    "question_answering": "AutoModelForQuestionAnswering",
    "multiple_choice": "AutoModelForMultipleChoice",
    "feature_extraction": "AutoModel",
    "audio_classification": "AutoModelForAudioClassification",
    "ctc": "AutoModelForCTC",
    "speech_seq2seq": "AutoModelForSpeechSeq2Seq",
    "masked_lm": "AutoModelForMaskedLM",
}
DTYPES = {"bf16": torch.bfloat16, "pure_bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_SIXTEEN_BITS = (torch.bfloat16, torch.float16)
#: parts that a checkpoint may lack beside the head: masked language models are published without a pooler
_MAY_BE_NEW = ("pooler",)


def load_model(
    base_model: BaseModel,
    shape: ModelShape,
    recipe: Recipe,
    labels: Sequence[str] = (),
    device: str | None = None,
    *,
    master_weights: bool = False,
) -> Any:
    """The base model under the head of ``shape``, in the recipe's precision or quantised, ready for a method.

    ``labels`` names the classes in the order of their ids. ``master_weights`` keeps float32 whatever the precision, for
    methods that train the base's own weights. InputError where the checkpoint lacks what the head needs.
    """
    arguments: dict[str, Any] = {"dtype": torch.float32 if master_weights else DTYPES[recipe.precision]}
    if recipe.quantization:
        arguments["quantization_config"] = quantization_config(recipe, shape)
        arguments["device_map"] = {"": device or ("cuda:0" if torch.cuda.is_available() else "cpu")}
    loader = getattr(transformers, AUTO_CLASSES[shape.head.kind])
    try:
        model, report = loader.from_pretrained(
            base_model.load_from,
            config=_config(base_model, shape, labels),
            local_files_only=base_model.folder is not None,
            trust_remote_code=False,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **arguments,
        )
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        raise InputError(f"{base_model.reference}: the model could not be loaded ({first_line(error)})", FIX) from error
    _check_complete(base_model, shape, report)
    if recipe.quantization:
        from peft import prepare_model_for_kbit_training

        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
        keep_one_kernel(model)
    elif device:
        model = model.to(device)
    return model


def build(
    problem: Problem,
    candidate: Candidate,
    labels: Sequence[str] = (),
    total_steps: int = 1,
    seed: int = 0,
    device: str | None = None,
    on_loaded: Callable[[Any, Any], None] | None = None,
    examples: Callable[[Any], Mapping[str, Any] | None] | None = None,
) -> tuple[Any, Any]:
    """Load the problem's model and apply the candidate's method: (model, tokenizer), ready to train.

    ``total_steps`` is the number of optimizer steps to come. The same seed gives the same head and adapter.
    ``on_loaded`` is called with the base model and the tokenizer before the method is applied (to score the base).
    ``examples`` makes :attr:`ApplyContext.examples`, given the base model.
    The tokenizer is None where the model neither reads nor writes text.
    """
    transformers.set_seed(seed)
    method, recipe, shape = candidate.method, candidate.recipe, problem.shape
    tokenizer, _ = load_processors(problem.model, shape)
    pure = recipe.precision == "pure_bf16" and not method.saves_adapter
    whole = not method.saves_adapter and not pure and not method.forward_only
    model = load_model(problem.model, shape, recipe, labels, device, master_weights=whole)
    if problem.task.problem_type is not None:
        model.config.problem_type = problem.task.problem_type
    if tokenizer is not None:
        fit_tokenizer(problem.model, model, tokenizer, shape)
    if recipe.gradient_checkpointing:
        if not method.gradient_checkpointing:
            raise UnsupportedError(f"{method.title} does not work with gradient checkpointing", "turn it off")
        model.gradient_checkpointing_enable({"use_reentrant": False})
    if shape.architecture == "decoder" and method.prepended_positions(candidate.values):
        # a soft prompt takes the token ids away by which a classifier finds the end of the text: it is put last
        tokenizer.padding_side = "left"
    if on_loaded is not None:
        on_loaded(model, tokenizer)
        transformers.set_seed(seed)
    context = ApplyContext(
        shape, problem.task.name, total_steps, seed, recipe.quantization is not None, examples and examples(model)
    )
    try:
        model = method.apply(model, candidate.values, context)
    except (ValueError, NotImplementedError) as error:
        raise UnsupportedError(
            f"{method.title} cannot be applied to {problem.model.name} ({first_line(error)})", "choose another method"
        ) from error
    rest_front(model)
    decode_as_it_can(model, method)
    if not pure and (whole or method.saves_adapter):
        train_in_float32(model)
    return model, tokenizer


def decode_as_it_can(model: Any, method: Method) -> None:
    """Read the whole text at every step of decoding where the method gives other logits with a cache."""
    if not method.decodes_with_cache and getattr(model, "generation_config", None) is not None:
        model.generation_config.use_cache = False


def rest_front(model: Any) -> None:
    """Let no gradient be asked for at the wave where the convolutions over it are frozen.

    wav2vec 2.0 and its kin ask for one whatever is trained, which would keep every activation of these convolutions.
    """
    for module in model.modules():
        if hasattr(module, "_requires_grad") and not any(item.requires_grad for item in module.parameters()):
            module._requires_grad = False


def count_parameters(model: Any) -> tuple[int, int]:
    """(trainable, all) parameters; 4-bit weights, which are stored two to a byte, count in full."""
    trainable = total = 0
    for parameter in model.parameters():
        state = getattr(parameter, "quant_state", None)
        number = state.shape.numel() if state is not None else parameter.numel()
        total += number
        trainable += number if parameter.requires_grad else 0
    return trainable, total


def merge(model: Any) -> Any:
    """The base model with the adapter merged into its weights and the trained head in its place.

    The head is put back first: peft's own way fails on heads of several layers under all tuners but LoRA's.
    """
    from peft.utils import ModulesToSaveWrapper

    for name, module in list(model.base_model.model.named_modules()):
        if isinstance(module, ModulesToSaveWrapper):
            parent, _, child = name.rpartition(".")
            trained = module.modules_to_save[module.active_adapter]
            setattr(model.base_model.model.get_submodule(parent), child, trained)
    return model.merge_and_unload()


def autocast(model: Any, recipe: Recipe, *, forward_only: bool = False) -> str | None:
    """Which automatic mixed precision ("bf16", "fp16") a training step of this model needs; None for none.

    float16 needs the Trainer's loss scaling. bfloat16 needs autocast where float32 and bfloat16 meet inside a layer:
    float32 master weights, a quantised base, single parameters trained in otherwise frozen layers. Methods that are
    ``forward_only`` learn from small differences of losses, which autocast takes in float32.
    """
    if recipe.precision == "fp32":
        return None
    kind = recipe.precision.removeprefix("pure_")
    if kind == "fp16" or recipe.quantization or forward_only:
        return kind
    if all(parameter.dtype not in _SIXTEEN_BITS for parameter in model.parameters()):
        return kind
    mixed = any(
        {True, False} == {parameter.requires_grad for parameter in module.parameters(recurse=False)}
        for module in model.modules()
    )
    return kind if mixed else None


def _config(base_model: BaseModel, shape: ModelShape, labels: Sequence[str]) -> Any:
    """The checkpoint's configuration with this task's labels (a span has two: start and end).

    One label on a sequence is a number to regress.
    """
    settings: dict[str, Any] = {"num_labels": 2} if shape.head.kind == "question_answering" else {}
    if shape.head.kind == "ctc":  # the first label is the blank
        settings = {
            "vocab_size": len(labels) or shape.head.num_labels,
            "pad_token_id": 0,
            "ctc_loss_reduction": "mean",
            "ctc_zero_infinity": True,
        }
    if shape.head.kind in {"sequence_classification", "token_classification", "audio_classification"}:
        names = tuple(labels) or tuple(f"LABEL_{index}" for index in range(shape.head.num_labels))
        settings = {
            "num_labels": len(names),
            "id2label": dict(enumerate(names)),
            "label2id": {name: index for index, name in enumerate(names)},
        }
        if shape.head.kind == "sequence_classification":
            settings["problem_type"] = "regression" if len(names) == 1 else "single_label_classification"
    return transformers.AutoConfig.from_pretrained(
        base_model.load_from,
        local_files_only=base_model.folder is not None,
        trust_remote_code=False,
        **settings,
    )


def quantization_config(recipe: Recipe, shape: ModelShape) -> Any:
    """4-bit NormalFloat with double quantisation, or 8 bits; heads that are trained stay as they are."""
    # transformers matches these from the start of a module's name: a part inside needs the pattern
    skipped = [f".*{name}" for name in (*shape.head.modules, *_MAY_BE_NEW)] if shape.head.modules else None
    if recipe.quantization == "int8":
        return transformers.BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return transformers.BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=DTYPES[recipe.precision],
        llm_int8_skip_modules=skipped,
    )


def keep_one_kernel(model: Any) -> None:
    """Let 4-bit layers on a CPU evaluate as they train.

    In evaluation bitsandbytes repacks the weights for bfloat16 kernels where the CPU has them, which rounds otherwise
    than training did, cannot be trained on again, and fails on layers whose sizes are no multiples of 32 and 64.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def _check_complete(base_model: BaseModel, shape: ModelShape, report: dict[str, Any]) -> None:
    """Only the head may be new: random weights anywhere else would pass for a pretrained model."""
    new = {*shape.head.modules, *_MAY_BE_NEW}
    mismatched = [entry[0] if isinstance(entry, tuple) else entry for entry in report["mismatched_keys"]]
    lost = [name for name in (*report["missing_keys"], *mismatched) if not new & set(name.split("."))]
    if lost:
        raise InputError(
            f"{base_model.reference}: the checkpoint lacks {len(lost)} of the weights that a {shape.head.kind} model"
            f" needs ({sorted(lost)[0]} first)",
            "the configuration and the weights are of different models, or the task needs another kind of model",
        )


def train_in_float32(model: Any) -> None:
    """Keep trained weights in float32: steps of a usual learning rate vanish in the rounding of 16 bits.

    A layer all of whose parameters are trained (a head) takes its input in float32 from then on. So does a
    normalisation of which only the bias is: autocast cannot mend two widths inside it, as it does for linear layers.
    """
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        trained = [parameter for parameter in own if parameter.requires_grad and parameter.dtype in _SIXTEEN_BITS]
        whole = bool(trained) and (len(trained) == len(own) or all(parameter.dim() == 1 for parameter in own))
        for parameter in own if whole else trained:
            parameter.data = parameter.data.float()
        if whole:
            module.register_forward_pre_hook(_to_float32)


def _to_float32(module: Any, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(
        item.float() if isinstance(item, torch.Tensor) and item.is_floating_point() else item for item in inputs
    )
