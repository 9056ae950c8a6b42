"""Load a saved adapter on its base model, whoever's tuner it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError
from peftselect.plugin_manager import host

if TYPE_CHECKING:
    from collections.abc import Mapping

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
#: peft's task types and the transformers classes of their models
_AUTO_CLASSES = {
    "CAUSAL_LM": "AutoModelForCausalLM",
    "SEQ_2_SEQ_LM": "AutoModelForSeq2SeqLM",
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "QUESTION_ANS": "AutoModelForQuestionAnswering",
    "FEATURE_EXTRACTION": "AutoModel",
}


def load(folder: str | Path, base: Any | None = None, **arguments: Any) -> Any:
    """The peft model of the adapter in ``folder``, in evaluation mode, on ``base`` (a model of transformers).

    Without ``base`` the model that the adapter names is loaded, with as many labels as the saved head has; one that was
    quantised must be given. Plugins are loaded first, so that their tuners are known; ``arguments`` go to
    ``PeftModel.from_pretrained`` (``adapter_name``, ``is_trainable``, ``low_cpu_mem_usage``). InputError where the
    folder holds no adapter, or one of a tuner that nothing installed provides.
    """
    path = Path(folder)
    config = _read(path)
    host()
    _check_type(path, config)
    from peft import PeftModel

    model = base if base is not None else _base(path, config)
    wrapped = PeftModel.from_pretrained(model, str(path), **arguments).eval()
    if config["peft_type"] == "ADALORA":
        # peft 0.21 looks this up wherever labels are given, and sets it only where the adapter is trained
        wrapped.base_model.trainable_adapter_name = arguments.get("adapter_name", "default")
    return wrapped


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads((path / _CONFIG).read_text(encoding="utf-8"))
        config["peft_type"].upper()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{path}: no adapter here ({_CONFIG}: {type(error).__name__})", "give the folder that a run wrote"
        ) from error
    return dict(config)


def _check_type(path: Path, config: Mapping[str, Any]) -> None:
    """Tell in one line what peft's KeyError would not."""
    import peft
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    kind = config["peft_type"]
    if kind in PEFT_TYPE_TO_CONFIG_MAPPING:
        return
    maker = config.get("saved_by")
    by = f"was saved by {maker}, whose tuner {kind!r} is not" if maker else f"needs the tuner {kind!r}, which is not"
    broken = "".join(f"; plugin {name} is broken: {why}" for name, why in host().broken.items())
    hint = f"pip install {maker}" if maker else "install the plugin that it was saved with"
    raise InputError(f"{path}: the adapter {by} in peft {peft.__version__} or any plugin{broken}", hint)


def _base(path: Path, config: Mapping[str, Any]) -> Any:
    """The base model that the adapter names, with a head for as many labels as were saved."""
    import transformers

    mapped = config.get("auto_mapping") or {}
    name = _AUTO_CLASSES.get(config.get("task_type") or "", mapped.get("base_model_class"))
    where = config.get("base_model_name_or_path")
    if not where or name is None or not hasattr(transformers, name):
        raise InputError(f"{path}: the adapter does not say which model it belongs to", "give the base model as well")
    settings = {}
    if config.get("task_type") in {"SEQ_CLS", "TOKEN_CLS"} and (labels := _labels(path / _WEIGHTS)):
        settings["num_labels"] = labels
    try:
        return getattr(transformers, name).from_pretrained(where, trust_remote_code=False, **settings)
    except (OSError, ValueError, RuntimeError) as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise InputError(f"{path}: its base model {where} could not be loaded ({first})", "give it as base") from error


def _labels(file: Path) -> int | None:
    """Outputs of the last matrix of the saved head."""
    from safetensors import safe_open

    with safe_open(str(file), "pt") as saved:
        heads = [name for name in saved.keys() if _is_head(name)]  # noqa: SIM118
        sizes = [saved.get_slice(name).get_shape()[0] for name in heads]
    return min(sizes) if sizes else None


def _is_head(name: str) -> bool:
    """Whether a saved tensor is a matrix of a task head: those lie outside the blocks."""
    parts = name.removeprefix("base_model.model.").split(".")
    return parts[-1] == "weight" and parts[0] in {"classifier", "score", "classification_head"}
