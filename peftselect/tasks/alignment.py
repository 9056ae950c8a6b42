"""Alignment with preferences (thesis 3.3): advised on here, trained by trl, to whose script the recipe is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from peftselect.hookspecs import hookimpl
from peftselect.task import Column, Row
from peftselect.tasks._advised import AdvisedTask

if TYPE_CHECKING:
    from peftselect.method import Candidate
    from peftselect.problem import Problem

_DTYPES = {"bf16": "bfloat16", "pure_bf16": "bfloat16", "fp16": "float16", "fp32": "float32"}
#: how strongly the tuned model is held to the reference (Rafailov et al. 2023)
BETA = 0.1


class Alignment(AdvisedTask):
    """Direct preference optimization on rows of prompt, chosen and rejected answer (Rafailov et al. 2023)."""

    name = "alignment"
    title = "Alignment with preferences"
    aliases = ("alignment_tuning", "dpo", "preference_tuning", "rlhf", "preferences")
    family = "generation"
    heads: ClassVar[Mapping[str, str]] = {"decoder": "causal_lm"}
    columns = (
        Column("prompt", "text", ("question", "instruction", "input")),
        Column("chosen", "text", ("preferred", "accepted", "response_chosen")),
        Column("rejected", "text", ("dispreferred", "response_rejected")),
    )
    metrics = ("accuracy",)
    default_models = ("qwen2.5-1.5b", "llama-3.2-1b", "qwen3-0.6b", "smollm2-360m", "smollm2-135m")
    default_max_length = 512
    default_max_target_length = 256
    elsewhere = "trl's DPO"
    writes_script = True
    notes = (
        "Alignment is trained by trl's DPO, not by run: --export FILE.py writes its script with this recipe. Start "
        "from a model that follows instructions.",
        "A pair is two sequences, so the script halves the micro-batch. An adapter's reference is the base with the "
        "adapter off; full fine-tuning holds a second copy of the base, which the memory above does not count.",
    )

    def input_texts(self, row: Row) -> tuple[str, ...]:
        """The prompt."""
        return (row["prompt"],)

    def target_text(self, row: Row) -> str:
        """The longer of the two answers, which is what the memory must hold."""
        return str(max(row["chosen"], row["rejected"], key=len))

    def export(self, problem: Problem, candidate: Candidate, train: str) -> str:
        """A Python script of ``trl.DPOTrainer`` with this recipe."""
        recipe = candidate.recipe
        pairs = max(recipe.micro_batch_size // 2, 1)
        accumulation = max(recipe.micro_batch_size * recipe.gradient_accumulation_steps // pairs, 1)
        arguments: dict[str, Any] = {
            "output_dir": f"alignment-{candidate.method.name}",
            "beta": BETA,
            "learning_rate": recipe.learning_rate,
            "num_train_epochs": recipe.num_train_epochs,
            "per_device_train_batch_size": pairs,
            "gradient_accumulation_steps": accumulation,
            "gradient_checkpointing": recipe.gradient_checkpointing or recipe.micro_batch_size < 2,
            "max_length": recipe.max_length + recipe.max_target_length,
            "lr_scheduler_type": recipe.lr_scheduler,
            "weight_decay": recipe.weight_decay,
            "bf16": recipe.precision in ("bf16", "pure_bf16"),
            "fp16": recipe.precision == "fp16",
        }
        imports, adapter = ["from datasets import load_dataset"], ""
        if candidate.method.saves_adapter:
            name, values = _adapter(problem, candidate)
            imports.append(f"from peft import {name}")
            adapter = f"    peft_config={name}({_keywords(values)}),\n"
        model = f'{{"dtype": {_DTYPES[recipe.precision]!r}}}'
        if recipe.quantization:
            imports.append("from transformers import BitsAndBytesConfig")
            model = f'{model[:-1]}, "quantization_config": BitsAndBytesConfig({_QUANTIZED[recipe.quantization]})}}'
        imports.append("from trl import DPOConfig, DPOTrainer")
        return (
            "\n".join(imports) + "\n\n"
            f"arguments = DPOConfig({_keywords(arguments)}, model_init_kwargs={model})\n"
            "trainer = DPOTrainer(\n"
            f"    model={problem.model.load_from!r},\n"
            "    args=arguments,\n"
            f'    train_dataset=load_dataset("json", data_files={train!r}, split="train"),\n'
            f"{adapter}"
            ")\n"
            "trainer.train()\n"
            "trainer.save_model()\n"
        )


_QUANTIZED = {
    "int8": "load_in_8bit=True",
    "nf4": "load_in_4bit=True, bnb_4bit_quant_type='nf4', bnb_4bit_use_double_quant=True, "
    "bnb_4bit_compute_dtype='bfloat16'",
}


def _adapter(problem: Problem, candidate: Candidate) -> tuple[str, dict[str, Any]]:
    """Class and values of the method's peft configuration, what is at its default left out."""
    from peftselect.errors import UnsupportedError
    from peftselect.method import ApplyContext

    method = candidate.method
    try:
        made = method.peft_config(
            problem.shape, candidate.values, ApplyContext(problem.shape, problem.task.name, total_steps=1)
        )
    except NotImplementedError:
        made = None
    if made is None or not type(made).__module__.startswith("peft."):
        raise UnsupportedError(f"{method.title} has no configuration that plain peft knows", "take --method lora")
    plain = type(made)().to_dict()
    return type(made).__name__, {
        name: value
        for name, value in made.to_dict().items()
        if value != plain.get(name) and name not in ("base_model_name_or_path", "peft_type")
    }


def _keywords(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={_plain(value)!r}" for name, value in values.items())


def _plain(value: Any) -> Any:
    if isinstance(value, set | frozenset):
        return sorted(value)
    return getattr(value, "value", value)


@hookimpl
def register_tasks() -> tuple[type[Alignment], ...]:
    """Offer advice on alignment."""
    return (Alignment,)
