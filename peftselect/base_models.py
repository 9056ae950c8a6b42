"""Base models by name: the catalogue, a local folder, or a hub id; only their configuration is read."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, UnknownNameError
from peftselect.problem import BaseModel
from peftselect.resources import shipped

if TYPE_CHECKING:
    from collections.abc import Mapping

CATALOGUE = "base_models.toml"
#: names of folders that say nothing of the model inside
_PLAIN_NAMES = frozenset({"model", "base", "checkpoint", "pytorch_model"})
#: a safetensors header is JSON and never nears this many bytes
_LONGEST_HEADER = 100_000_000


@dataclass(frozen=True)
class CatalogueEntry:
    """A model of the catalogue. ``parameters`` is the publicly known count; ``pooler``: the checkpoint has one."""

    name: str
    hub: str
    licence: str
    parameters: int
    config: Mapping[str, Any]
    pooler: bool = True


@cache
def catalogue() -> dict[str, CatalogueEntry]:
    """The catalogue of base models by name (``rules/base_models.toml``)."""
    document = tomllib.loads(shipped("rules", CATALOGUE).read_text(encoding="utf-8"))
    return {
        name: CatalogueEntry(
            name, facts["hub"], facts["licence"], facts["parameters"], facts["config"], facts.get("pooler", True)
        )
        for name, facts in document["model"].items()
    }


def resolve_base_model(reference: str) -> BaseModel:
    """Find a base model: an existing folder first, then the catalogue, then the hub (its cache, then a download).

    Raises InputError when the folder, its ``config.json`` or the name cannot be used; no weights are read.
    """
    folder = Path(reference).expanduser()
    if folder.is_dir():
        return _from_folder(reference, folder)
    if folder.is_file():
        raise InputError(f"{reference} is a file, not a model folder", "give the folder that holds config.json")
    if entry := _in_catalogue(reference):
        return BaseModel(
            entry.name,
            reference,
            entry.hub,
            "catalogue",
            entry.config,
            licence=entry.licence,
            lacks_pooler=not entry.pooler,
        )
    if _looks_like_a_path(reference):
        raise InputError(f"there is no folder {reference}", "give a folder with config.json, or a model's name")
    if reference.count("/") == 1:
        return _from_hub(reference)
    raise UnknownNameError("base model", reference, sorted(catalogue()))


def _looks_like_a_path(reference: str) -> bool:
    return reference.startswith((".", "/", "~")) or reference.count("/") > 1


def _in_catalogue(reference: str) -> CatalogueEntry | None:
    wanted = reference.lower()
    entries = catalogue()
    if wanted in entries:
        return entries[wanted]
    return next((entry for entry in entries.values() if entry.hub.lower() == wanted), None)


def _from_folder(reference: str, folder: Path) -> BaseModel:
    file = folder / "config.json"
    if not file.is_file():
        if (folder / "adapter_config.json").is_file():
            raise InputError(f"{reference} holds an adapter, not a base model", "name the model it was trained on")
        raise InputError(f"{reference} has no config.json", "a base model is a folder that save_pretrained wrote")
    config = _parse(file)
    whole = folder.resolve()
    return BaseModel(
        _folder_name(whole), reference, str(whole), "folder", config, whole, lacks_pooler=_lacks_pooler(whole)
    )


def _lacks_pooler(folder: Path) -> bool:
    """Whether the checkpoint's tensors are known and none is a pooler's; only the file's header is read."""
    index, single = folder / "model.safetensors.index.json", folder / "model.safetensors"
    try:
        if index.is_file():
            names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        elif single.is_file():
            with single.open("rb") as handle:
                length = int.from_bytes(handle.read(8), "little")
                names = json.loads(handle.read(min(length, _LONGEST_HEADER)))
        else:
            return False
    except (OSError, ValueError, KeyError):
        return False  # a broken checkpoint is reported by whoever loads it
    return not any("pooler." in name for name in names)


def _folder_name(folder: Path) -> str:
    """The folder's name, with that of the one above where it says nothing (``my-bert/model``)."""
    return f"{folder.parent.name}/{folder.name}" if folder.name in _PLAIN_NAMES else folder.name


def _parse(file: Path) -> dict[str, Any]:
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file} cannot be read ({error})", "check the file and its permissions") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{file} is not JSON (line {error.lineno}: {error.msg})", "take it from the model") from error
    if not isinstance(config, dict) or not config.get("model_type"):
        raise InputError(f"{file} has no model_type", "is this a transformers model folder?")
    return _text_part(config)


def _text_part(config: dict[str, Any]) -> dict[str, Any]:
    """The language model's own configuration, where the file nests it (Gemma 3 with images, for instance)."""
    nested = config.get("text_config")
    return {**nested} if isinstance(nested, dict) and nested.get("model_type") else config


def _from_hub(reference: str) -> BaseModel:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        file = Path(hf_hub_download(reference, "config.json"))
    except LocalEntryNotFoundError as error:
        raise InputError(
            f"{reference} is not in the catalogue and the hub cannot be reached",
            "give a folder with config.json, or a name of the catalogue (rules/base_models.toml)",
        ) from error
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{reference} cannot be read from the hub ({lines[0]})", "check the name and access"
        ) from error
    return BaseModel(reference.rpartition("/")[2], reference, reference, "hub", _parse(file))
