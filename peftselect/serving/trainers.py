"""The recipe of a trained adapter as configurations of other trainers: axolotl, LLaMA-Factory, TRL."""

from __future__ import annotations

import json
import shlex
from typing import Any

from peftselect.errors import UnsupportedError
from peftselect.plugin_manager import host
from peftselect.serving.exporting import Export, Source, writes


@writes("axolotl")
def _axolotl(source: Source) -> Export:
    """A configuration of axolotl that trains the same adapter by the same recipe."""
    _trainable_lora(source, "axolotl")
    recipe, template = source.recipe, _template(source)
    columns = _columns(source)
    prompt = {"field_instruction": columns["source"], "field_output": columns["target"]}
    shape = {
        "format": template.replace("{source}", "{instruction}"),
        "no_input_format": template.replace("{source}", "{instruction}"),
    }
    document = {
        "base_model": source.base,
        "adapter": "qlora" if recipe.get("quantization") == "nf4" else "lora",
        "load_in_4bit": recipe.get("quantization") == "nf4",
        "load_in_8bit": recipe.get("quantization") == "int8",
        "lora_r": source.config["r"],
        "lora_alpha": source.config["lora_alpha"],
        "lora_dropout": source.config["lora_dropout"],
        "lora_target_modules": source.config["target_modules"],
        "datasets": [{"path": _train(source), "ds_type": "json", "type": {**prompt, **shape}}],
        "sequence_len": _length(recipe),
        "micro_batch_size": recipe["micro_batch_size"],
        "gradient_accumulation_steps": recipe["gradient_accumulation_steps"],
        "gradient_checkpointing": recipe["gradient_checkpointing"],
        "num_epochs": recipe["num_train_epochs"],
        "learning_rate": recipe["learning_rate"],
        "lr_scheduler": recipe["lr_scheduler"],
        "warmup_ratio": recipe["warmup_ratio"],
        "weight_decay": recipe["weight_decay"],
        "optimizer": "adamw_torch_fused",
        "bf16": recipe["precision"] == "bf16",
        "train_on_inputs": False,
        "output_dir": f"./{source.name}-axolotl",
    }
    file = f"{source.name}-axolotl.yaml"
    return Export("The data must be JSON lines.", (f"axolotl train {shlex.quote(file)}",), {file: _yaml(document)})


@writes("llama-factory")
def _llama_factory(source: Source) -> Export:
    """A configuration of LLaMA-Factory that trains the same adapter by the same recipe."""
    _trainable_lora(source, "LLaMA-Factory")
    recipe, columns = source.recipe, _columns(source)
    bits = {"nf4": 4, "int8": 8}.get(recipe.get("quantization", ""))
    document = {
        "model_name_or_path": source.base,
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "lora",
        "lora_rank": source.config["r"],
        "lora_alpha": source.config["lora_alpha"],
        "lora_dropout": source.config["lora_dropout"],
        "lora_target": ",".join(source.config["target_modules"]),
        "use_rslora": bool(source.config.get("use_rslora")),
        "use_dora": bool(source.config.get("use_dora")),
        **({"quantization_bit": bits} if bits else {}),
        "dataset": source.name,
        "dataset_dir": ".",
        "template": "default",
        "cutoff_len": _length(recipe),
        "per_device_train_batch_size": recipe["micro_batch_size"],
        "gradient_accumulation_steps": recipe["gradient_accumulation_steps"],
        "disable_gradient_checkpointing": not recipe["gradient_checkpointing"],
        "num_train_epochs": recipe["num_train_epochs"],
        "learning_rate": recipe["learning_rate"],
        "lr_scheduler_type": recipe["lr_scheduler"],
        "warmup_ratio": recipe["warmup_ratio"],
        "weight_decay": recipe["weight_decay"],
        "bf16": recipe["precision"] == "bf16",
        "output_dir": f"./{source.name}-llama-factory",
    }
    data = {
        source.name: {
            "file_name": _train(source),
            "columns": {"prompt": columns["source"], "response": columns["target"]},
        }
    }
    file = f"{source.name}-llama-factory.yaml"
    files = {file: _yaml(document), "dataset_info.json": json.dumps(data, indent=2) + "\n"}
    about = "Its template wraps each prompt; peftselect's own was " + json.dumps(_template(source)) + "."
    return Export(about, (f"llamafactory-cli train {shlex.quote(file)}",), files)


@writes("trl")
def _trl(source: Source) -> Export:
    """A configuration of TRL's sft command that trains the same adapter by the same recipe."""
    _trainable_lora(source, "TRL")
    recipe = source.recipe
    document = {
        "model_name_or_path": source.base,
        "dataset_name": f"{source.name}-data",
        "use_peft": True,
        "lora_r": source.config["r"],
        "lora_alpha": source.config["lora_alpha"],
        "lora_dropout": source.config["lora_dropout"],
        "lora_target_modules": source.config["target_modules"],
        "use_rslora": bool(source.config.get("use_rslora")),
        "use_dora": bool(source.config.get("use_dora")),
        "load_in_4bit": recipe.get("quantization") == "nf4",
        "load_in_8bit": recipe.get("quantization") == "int8",
        "max_length": _length(recipe),
        "completion_only_loss": True,
        "per_device_train_batch_size": recipe["micro_batch_size"],
        "gradient_accumulation_steps": recipe["gradient_accumulation_steps"],
        "gradient_checkpointing": recipe["gradient_checkpointing"],
        "num_train_epochs": recipe["num_train_epochs"],
        "learning_rate": recipe["learning_rate"],
        "lr_scheduler_type": recipe["lr_scheduler"],
        "weight_decay": recipe["weight_decay"],
        "bf16": recipe["precision"] == "bf16",
        "output_dir": f"./{source.name}-trl",
    }
    file = f"{source.name}-trl.yaml"
    about = f"{source.name}-data must hold a train.jsonl with the columns prompt and completion."
    return Export(about, (f"trl sft --config {shlex.quote(file)}",), {file: _yaml(document)})


def _trainable_lora(source: Source, tool: str) -> None:
    if source.config.get("peft_type") != "LORA" or source.config.get("task_type") != "CAUSAL_LM":
        raise UnsupportedError(f"{tool} trains LoRA on causal language models", "peftselect run trains the others")
    if isinstance(source.config.get("target_modules"), str):
        raise UnsupportedError(f"{tool} wants the names of modules, this adapter has a pattern", "name target_modules")


def _template(source: Source) -> str:
    """The prompt as it was trained, with what stands before the answer."""
    task = host().task(source.saved.task)
    return str(source.saved.template or getattr(task, "template", "{source}")) + str(getattr(task, "separator", ""))


def _columns(source: Source) -> dict[str, str]:
    return {"source": "source", "target": "target", **source.saved.columns}


def _train(source: Source) -> str:
    return source.saved.train or "TRAIN.jsonl"


def _length(recipe: dict[str, Any]) -> int:
    return int(recipe["max_length"]) + int(recipe.get("max_target_length", 0))


def _yaml(document: dict[str, Any]) -> str:
    import yaml

    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))
