"""Multitask prompt tuning: the product that is trained and saved, and prompts that are carried to the next task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftselect import read_prompt
from peftselect.errors import UnsupportedError
from peftselect.method import ApplyContext, resolve_values
from peftselect.plugin_manager import host
from peftselect.testing.models import auto_class, tiny_folder, tiny_shape


def applied(**overrides: Any) -> Any:
    """A tiny BERT under multitask prompt tuning."""
    method, shape = host().method("mpt"), tiny_shape("bert", "sequence_classification")
    assert shape is not None
    model = auto_class(shape).from_pretrained(tiny_folder("bert", "sequence_classification"))
    values = resolve_values(method, shape, {"num_virtual_tokens": 4, "factor_rank": 2, **overrides})
    return method.apply(model, values, ApplyContext(shape, "classification", 1))


def parts(model: Any) -> dict[str, torch.Tensor]:
    found = {name.rpartition(".")[2]: item for name, item in model.named_parameters() if "parametrizations" in name}
    assert set(found) == {"original", "columns", "rows"}
    return found


def test_the_saved_prompt_is_the_shared_one_times_the_tasks_matrix(tmp_path: Path) -> None:
    model = applied()
    own = parts(model)
    with torch.no_grad():
        own["columns"].normal_()
        own["rows"].normal_()
    model.save_pretrained(tmp_path)
    product = own["original"] * (own["columns"] @ own["rows"])
    assert torch.allclose(read_prompt([str(tmp_path)]), product, atol=1e-6)


def test_the_next_task_starts_from_the_mean_of_the_prompts(tmp_path: Path) -> None:
    folders = [str(tmp_path / name) for name in ("one", "two")]
    for seed, folder in enumerate(folders):
        torch.manual_seed(seed)
        applied().save_pretrained(folder)
    first, second = (read_prompt([folder]) for folder in folders)
    model = applied(prompt_from=tuple(folders))
    assert torch.allclose(parts(model)["original"], (first + second) / 2)
    prompt = model.prompt_encoder["default"].embedding.weight
    assert torch.allclose(prompt, (first + second) / 2), "the matrix is all ones at first"


def test_prompts_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="holds no soft prompt"):
        applied(prompt_from=(str(tmp_path),))
    applied().save_pretrained(tmp_path / "one")
    applied(num_virtual_tokens=5).save_pretrained(tmp_path / "two")
    with pytest.raises(UnsupportedError, match="is of another size than that in"):
        applied(prompt_from=(str(tmp_path / "one"), str(tmp_path / "two")))
    with pytest.raises(UnsupportedError, match=r"the prompts are of \(4, 32\), this one is of \(6, 32\)"):
        applied(num_virtual_tokens=6, prompt_from=(str(tmp_path / "one"),))
