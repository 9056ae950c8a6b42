"""A soft prompt as a task has it: the prompt that tasks share, times a low-rank matrix of the task's own.

Wang et al. 2023 (multitask prompt tuning, arXiv 2303.02861), equation 1. What is saved is the product, an ordinary
prompt of peft's.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn.utils import parametrize

if TYPE_CHECKING:
    from collections.abc import Sequence

_FILE, _NAME = "adapter_model.safetensors", "prompt_embeddings"


class Scaling(nn.Module):
    """The task's matrix of rank R, as (tokens, R) and (R, width); all ones at first."""

    def __init__(self, size: tuple[int, int], rank: int, device: Any) -> None:
        super().__init__()
        tokens, width = size
        columns, rows = torch.randn(tokens, rank, device=device) * 0.02, torch.zeros(rank, width, device=device)
        columns[:, 0] = rows[0] = 1.0
        self.columns, self.rows = nn.Parameter(columns), nn.Parameter(rows)

    def forward(self, shared: torch.Tensor) -> torch.Tensor:
        """The task's prompt (tokens, width)."""
        return shared * (self.columns @ self.rows)


def scale_prompt(model: Any, rank: int, shared: torch.Tensor | None = None) -> None:
    """Have the active prompt of a peft model be trained as ``shared`` times a matrix of this rank.

    ``shared`` (tokens, width) is where it starts, by default where it is.
    """
    embedding = model.prompt_encoder[model.active_adapter].embedding
    weight = embedding.weight
    if shared is not None:
        weight.data.copy_(shared)
    scaling = Scaling((weight.shape[0], weight.shape[1]), rank, weight.device)
    parametrize.register_parametrization(embedding, "weight", scaling, unsafe=True)


def read_prompt(folders: Sequence[str]) -> torch.Tensor:
    """The mean of the prompts (tokens, width) of saved adapters; ValueError names a folder without one, or of another
    size than the first."""
    found: list[torch.Tensor] = []
    for folder in folders:
        file = Path(folder) / _FILE
        prompt = load_file(file).get(_NAME) if file.is_file() else None
        if prompt is None:
            raise ValueError(f"{folder} holds no soft prompt")
        if found and prompt.shape != found[0].shape:
            raise ValueError(f"the prompt in {folder} is of another size than that in {folders[0]}")
        found.append(prompt.float())
    return torch.stack(found).mean(0)
