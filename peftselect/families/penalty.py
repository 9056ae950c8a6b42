"""A term that a method adds to the loss while it trains."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def add_penalty(model: Any, penalty: Callable[[], Any]) -> Any:
    """``model``, to whose loss ``penalty()`` is added in training; where it makes no loss, nothing is."""

    def add(module: Any, _: Any, output: Any) -> Any:
        if module.training and getattr(output, "loss", None) is not None:
            output.loss = output.loss + penalty()
        return output

    model.register_forward_hook(add)
    return model
