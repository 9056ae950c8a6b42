"""Poly: the mixture of skills, and skills that are carried to the next task."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from peftselect.errors import UnsupportedError
from peftselect.method import ApplyContext, resolve_values
from peftselect.plugin_manager import host
from peftselect.testing.models import auto_class, tiny_folder, tiny_shape


def applied(**overrides: Any) -> Any:
    """A tiny BERT under Poly."""
    method, shape = host().method("poly"), tiny_shape("bert", "sequence_classification")
    assert shape is not None
    model = auto_class(shape).from_pretrained(tiny_folder("bert", "sequence_classification"))
    values = resolve_values(method, shape, {"r": 2, "skills": 3, **overrides})
    return method.apply(model, values, ApplyContext(shape, "classification", 1))


def tensors(model: Any, part: str) -> dict[str, torch.Tensor]:
    return {name: item for name, item in model.named_parameters() if f"psel_skills_{part}" in name}


def test_the_update_is_the_shares_times_the_skills() -> None:
    model = applied()
    layer = next(module for module in model.modules() if hasattr(module, "factors"))
    down, up, router = (getattr(layer, f"psel_skills_{name}")["default"] for name in ("down", "up", "router"))
    with torch.no_grad():
        up.normal_()
        router.copy_(torch.tensor([50.0, -50.0, 50.0]))  # the first and the last skill, half and half
        mixed_down, mixed_up = layer.factors("default")
    assert torch.allclose(mixed_down, (down[0] + down[2]) / 2, atol=1e-6)
    assert torch.allclose(mixed_up, (up[0] + up[2]) / 2, atol=1e-6)


def test_the_next_task_starts_from_the_skills_and_mixes_anew(tmp_path: Path) -> None:
    torch.manual_seed(0)
    first = applied()
    with torch.no_grad():
        for item in (*tensors(first, "up").values(), *tensors(first, "router").values()):
            item.normal_()
    first.save_pretrained(tmp_path)
    second = applied(skills_from=str(tmp_path))
    for part in ("down", "up"):
        for name, item in tensors(second, part).items():
            assert torch.equal(item, tensors(first, part)[name]), name
    assert all(item.abs().max() < 0.01 for item in tensors(second, "router").values())


def test_skills_of_another_size_are_refused(tmp_path: Path) -> None:
    applied().save_pretrained(tmp_path)
    with pytest.raises(UnsupportedError, match="its skills are not of these layers and sizes"):
        applied(r=4, skills_from=str(tmp_path))
    with pytest.raises(UnsupportedError, match="there is no adapter"):
        applied(skills_from=str(tmp_path / "nowhere"))
