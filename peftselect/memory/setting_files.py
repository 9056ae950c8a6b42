"""Settings that are read from JSON files: a PEFT configuration, and the options of an estimate."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Collection


def read_peft_config(path: str) -> dict[str, Any]:
    """An ``adapter_config.json``, or the one in a folder; InputError where it is none."""
    file = Path(path) / "adapter_config.json" if Path(path).is_dir() else Path(path)
    document = _object(file, "an adapter_config.json as peft writes it")
    if not isinstance(document.get("peft_type"), str):
        raise InputError(f"{file}: no PEFT configuration, peft_type is missing", "give an adapter_config.json")
    return document


def read_options(path: str, known: Collection[str]) -> dict[str, Any]:
    """Options by name (dashes or underscores); UnknownNameError for one that is not ``known``."""
    document = {name.replace("-", "_"): value for name, value in _object(Path(path), "a JSON object").items()}
    for name in document:
        if name not in known:
            raise UnknownNameError(f"option in {path}", name, sorted(known))
    return document


def _object(file: Path, wanted: str) -> dict[str, Any]:
    try:
        document = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: {error.strerror or error}", f"give {wanted}") from error
    except ValueError as error:
        raise InputError(f"{file}: not JSON ({error})", f"give {wanted}") from error
    if not isinstance(document, dict):
        raise InputError(f"{file}: not a JSON object", f"give {wanted}")
    return document
