"""What a run left behind, read without torch: the adapter's folder and all that is known of it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from peftselect.errors import InputError
from peftselect.plugin_manager import host
from peftselect.training.output import RECORD_FILE, SERVING_FILE

if TYPE_CHECKING:
    from peftselect.task import Row

Precision = Literal["bf16", "fp16", "fp32", "pure_bf16"]


@dataclass(frozen=True)
class Saved:
    """An adapter (or a whole model) in ``folder``, and how it was trained to be asked.

    ``model`` is what the base model is loaded from; lengths are tokens (0: the task's defaults).
    """

    folder: Path
    task: str
    model: str
    method: str = ""
    whole_model: bool = False
    mergeable: bool = True
    labels: tuple[str, ...] = ()
    template: str | None = None
    #: kind of task head; empty: the task's own
    head: str = ""
    label_words: tuple[str, ...] = ()
    demonstrations: tuple[Row, ...] = ()
    #: our columns by the names that the training file gave them, and that file
    columns: Mapping[str, str] = field(default_factory=dict)
    train: str = ""
    prepended_positions: int = 0
    precision: Precision = "fp32"
    quantization: Literal["int8", "nf4"] | None = None
    max_length: int = 0
    max_target_length: int = 0
    batch_size: int = 8

    @property
    def name(self) -> str:
        """What tables call it."""
        return self.folder.name or str(self.folder)


def read_saved(folder: str | Path, *, task: str | None = None, model: str | None = None) -> Saved:
    """What is known of the adapter in ``folder``.

    Where no run of ours wrote it, ``task`` must say what it is for. ``model`` says where the base model lies now, if it
    has moved. InputError where the folder holds neither.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InputError(f"there is no folder {folder}", "give the --output of a run, or a folder with an adapter")
    known = _document(path / SERVING_FILE) or _of_adapter(path, task)
    document = {name: value for name, value in known.items() if name in {item.name for item in fields(Saved)}}
    lists = ("labels", "label_words", "demonstrations")
    document |= {name: tuple(document.get(name, ())) for name in lists} | ({"model": model} if model else {})
    if task is not None:
        document["task"] = task
    return Saved(folder=path, **{**document, "task": host().task(document["task"]).name})


def read_record(folder: str | Path) -> dict[str, Any]:
    """The whole ``run.json`` of a run; InputError where there is none."""
    document = _document(Path(folder) / RECORD_FILE)
    if document is None:
        raise InputError(f"{folder} holds no run", f"give the --output of a finished run ({RECORD_FILE} is missing)")
    return document


def _of_adapter(path: Path, task: str | None) -> dict[str, Any]:
    config = _document(path / "adapter_config.json")
    if config is None:
        raise InputError(f"{path} holds neither a run nor an adapter", "give the --output of a run")
    if task is None:
        raise InputError(f"{path} does not say what the adapter is for", "give --task")
    base = config.get("base_model_name_or_path")
    if not base:
        raise InputError(f"{path} does not say which model the adapter belongs to", "give --model")
    before = int(config.get("num_virtual_tokens") or 0) if config.get("peft_type") in _PREPEND else 0
    return {"task": task, "model": base, "method": str(config.get("peft_type", "")), "prepended_positions": before}


#: peft's types that put positions before the input
_PREPEND = {"PROMPT_TUNING", "P_TUNING", "MULTITASK_PROMPT_TUNING"}


def _document(file: Path) -> dict[str, Any] | None:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error})", "was it written whole?") from error
