"""Training by differences of losses: the update's formula, that nothing else is made, and runs through the Trainer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import peftselect
from peftselect import ForwardOptimizer, ZerothOrderSGD
from peftselect.plugin_manager import host
from peftselect.training.trainer import TaskTrainer
from tests.test_run import arguments, read_json

RATE, EPSILON = 0.01, 1e-3


def start() -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64))


def losses(weights: torch.nn.Parameter) -> Iterator[Callable[[], torch.Tensor]]:
    """Two micro-batches of a quadratic problem."""
    for target in (torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 0.0, -1.0])):
        yield lambda target=target: ((weights - target) ** 2).sum() / 2


def test_a_step_is_the_slope_along_a_direction_that_its_seed_gives_back() -> None:
    weights = start()
    before = weights.detach().clone()
    optimizer = ZerothOrderSGD([weights], lr=RATE, epsilon=EPSILON, seed=5)
    shown = [float(optimizer.measure(loss)) for loss in losses(weights)]
    assert torch.allclose(weights, before, atol=1e-12)  # put back
    optimizer.step()
    moved = (weights.detach() - before) / -RATE
    direction = torch.randn(3, generator=torch.Generator().manual_seed(5 * 1_000_003), dtype=torch.float64)
    gradient = sum(before - target for target in (torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 0.0, -1.0])))
    assert torch.allclose(moved, (gradient @ direction) * direction, rtol=1e-2)  # losses are taken in float32
    assert weights.grad is None
    assert shown == pytest.approx([6.125, 5.125], abs=1e-4)


def test_directions_differ_from_step_to_step_and_repeat_after_loading() -> None:
    def steps(optimizer: ZerothOrderSGD, weights: Any, number: int) -> None:
        for _ in range(number):
            for loss in losses(weights):
                optimizer.measure(loss)
            optimizer.step()

    whole = start()
    steps(ZerothOrderSGD([whole], lr=RATE, seed=3), whole, 6)
    halves = start()
    first = ZerothOrderSGD([halves], lr=RATE, seed=3)
    steps(first, halves, 3)
    second = ZerothOrderSGD([halves], lr=1.0, seed=99)
    second.load_state_dict(first.state_dict())
    steps(second, halves, 3)
    assert torch.equal(whole, halves)
    assert sum(loss() for loss in losses(whole)) < sum(loss() for loss in losses(start()))


def test_what_else_is_drawn_does_not_depend_on_it() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    weights = start()
    optimizer = ZerothOrderSGD([weights], lr=RATE)
    optimizer.measure(next(losses(weights)))
    optimizer.step()
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("name", ["mezo", "mezo_lora"])
def test_a_run_makes_no_gradients(
    name: str, tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a backward pass")

    monkeypatch.setattr(torch.Tensor, "backward", refuse)
    order = arguments(tmp_path, "classification", tiny_models("bert"), name, settings={"micro_batch_size": 4})
    result = peftselect.run(**order)
    file = "model.safetensors" if name == "mezo" else "adapter_model.safetensors"
    assert all(torch.isfinite(item).all() for item in load_file(result.output / file).values())
    settings = read_json(result.output / "run.json")["candidate"]
    assert settings["recipe"]["lr_scheduler"] == "constant"


def test_half_the_micro_batch_accumulated_twice_is_the_same_step(
    tiny_models: Callable[[str], Path], tmp_path: Path
) -> None:
    found = []
    for size, steps in ((8, 1), (4, 2)):
        settings = {"micro_batch_size": size, "gradient_accumulation_steps": steps, "learning_rate": 1e-2}
        (tmp_path / str(size)).mkdir()
        order = arguments(tmp_path / str(size), "classification", tiny_models("bert"), "mezo_lora", settings=settings)
        found.append(load_file(peftselect.run(**order, max_steps=1).output / "adapter_model.safetensors"))
    for name, tensor in found[0].items():
        assert torch.allclose(tensor, found[1][name], atol=1e-5), name


def test_any_plugin_may_bring_such_an_optimizer(
    tiny_models: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Shrink(ForwardOptimizer):
        """Makes every weight smaller where that does not hurt."""

        measured = 0

        def measure(self, loss: Callable[[], torch.Tensor]) -> torch.Tensor:
            type(self).measured += 1
            return loss()

        def step(self, closure: Any = None) -> None:
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.mul_(0.5)

    lora = type(host().method("lora"))
    monkeypatch.setattr(lora, "forward_only", True)
    trained: list[Any] = []

    def optimizer(self: Any, model: Any, values: Any) -> Any:
        trained[:] = [item for item in model.parameters() if item.requires_grad]
        return Shrink(trained, {"lr": 1.0})

    monkeypatch.setattr(lora, "optimizer", optimizer)
    steps: list[Any] = []
    original = TaskTrainer.training_step
    monkeypatch.setattr(TaskTrainer, "training_step", lambda self, *given: steps.append(self) or original(self, *given))
    peftselect.run(**arguments(tmp_path, "classification", tiny_models("bert"), "lora"))
    assert Shrink.measured == len(steps) > 3
    assert all(item.grad is None for item in trained)
