"""The tiny models on which a method is tried, and the few steps it is trained for."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

from peftselect.method import ApplyContext, Method, Recipe, resolve_values
from peftselect.modeling import AUTO_CLASSES, load_model
from peftselect.problem import BaseModel
from peftselect.testing.models import LABELS, TINY, Case, batch, loss_of, quiet, tiny_folder, tiny_shape

#: optimizer steps that a tiny model is trained for
STEPS = 6
#: where a method is tried on two architectures alone, these come first
FIRST_KINDS = ("bert", "llama", "wav2vec2", "t5", "gpt2", "bart", "whisper")
#: every head of every architecture; one head of each of the first two; one of each of the others
Breadth = Literal["every head", "two architectures", "other architectures"]


#: tiny models by their folder, as they were read: tests take copies, which are made ten times as fast
_MODELS: dict[str, Any] = {}


def _read(case: Case, quantization: Any) -> Any:
    recipe = Recipe("fp32", quantization, 2, 1, False, 1e-2, 1, 16)
    with quiet():
        return load_model(case.base, case.shape, recipe, LABELS if case.shape.head.num_labels else ())


class MethodCases:
    """Which models a method is tried on, and how it is put on them. Subclasses set :attr:`method`."""

    method: ClassVar[type[Method]]
    #: settings to try, each a mapping of overrides of the defaults
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)
    #: on how much it is tried: on two architectures it takes seconds instead of a minute
    breadth: ClassVar[Breadth] = "every head"

    def cases(self) -> Iterator[Case]:
        """Every tiny model and head which the method says it can serve, under every variant."""
        made, found = self.method(), False
        for kind in TINY:
            for head in AUTO_CLASSES:
                shape = tiny_shape(kind, head)
                if shape is None or head not in made.heads or shape.architecture not in made.architectures:
                    continue
                for overrides in self.variants:
                    values = resolve_values(made, shape, overrides)
                    if made.unsupported(shape, values) is None:
                        found = True
                        folder = tiny_folder(kind, head)
                        yield Case(BaseModel(kind, kind, str(folder), "folder", {}, folder), shape, values)
        assert found or made.needs, f"{made.name} serves none of {', '.join(TINY)}"

    def few_cases(self) -> list[Case]:
        """Enough of :meth:`cases` to see every architecture, every head and every variant once; of less
        :attr:`breadth`, one head of each of some architectures under every variant."""
        few: list[Case] = []
        seen: set[Any] = set()
        for case in self.cases():
            variant = str(sorted(case.values.items()))
            kind, head = case.shape.model_type, case.shape.head.kind
            traits = {kind, head, variant} if self.breadth == "every head" else {(kind, variant)}
            if traits - seen:
                few.append(case)
            seen |= traits
        if self.breadth == "every head":
            return few
        first = sorted({case.shape.model_type for case in few}, key=FIRST_KINDS.index)[:2]
        chosen = self.breadth == "two architectures"
        return [case for case in few if (case.shape.model_type in first) == chosen]

    def load(self, case: Case, quantization: Any = None) -> Any:
        """The tiny base model, quantised where the method needs it."""
        if self.method.quantized_base == "required":
            quantization = "nf4"
        if quantization is not None:
            return _read(case, quantization)
        folder = case.base.load_from
        if folder not in _MODELS:
            _MODELS[folder] = _read(case, None)
        return copy.deepcopy(_MODELS[folder])

    def apply(self, model: Any, case: Case, *, quantized: bool = False) -> Any:
        """``model`` with the method on it."""
        import torch

        torch.manual_seed(0)
        quantized = quantized or self.method.quantized_base == "required"
        with quiet():
            return self.method().apply(model, case.values, self.context(case, quantized=quantized))

    def wrap(self, case: Case) -> Any:
        """A fresh tiny model with the method on it."""
        return self.apply(self.load(case), case)

    def context(self, case: Case, *, quantized: bool = False) -> ApplyContext:
        """What the method is told when it is applied."""
        examples = batch(case) if self.method().examples(case.values) else None
        return ApplyContext(case.shape, "test", total_steps=10 * STEPS, quantized=quantized, examples=examples)

    def train(self, model: Any, case: Case) -> dict[str, float]:
        """Take a few steps; share of the rows of each trained tensor that got a gradient (or moved) at least once."""
        import torch

        from peftselect.zeroth_order import ForwardOptimizer

        parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
        reached = {name: torch.zeros(len(item), dtype=torch.bool) for name, item in parameters.items()}
        optimizer: Any = self.method().optimizer(model, case.values) or torch.optim.AdamW(parameters.values(), lr=1e-2)
        callbacks = self.method().callbacks(case.values, self.context(case))
        forward = isinstance(optimizer, ForwardOptimizer)
        assert forward == self.method.forward_only, "forward_only and the optimizer disagree"
        model.train(not forward)

        def loss_now() -> Any:
            return loss_of(model(**batch(case, self.method().prepended_positions(case.values))))

        for step in range(STEPS):
            before = {name: item.detach().clone() for name, item in parameters.items()} if forward else {}
            loss = optimizer.measure(loss_now) if forward else loss_now()
            assert torch.isfinite(loss), f"{case}: the loss is {loss}"
            if not forward:
                loss.backward()
            for callback in callbacks:
                callback.on_pre_optimizer_step(None, SimpleNamespace(global_step=step), None, model=model)
            changes = {name: item.grad for name, item in parameters.items()}
            for callback in callbacks:
                callback.on_pre_optimizer_step(None, SimpleNamespace(global_step=step), None, model=model)
            optimizer.step()
            if forward:
                assert all(item.grad is None for item in model.parameters()), f"{case}: a gradient was made"
                changes = {name: item.detach() - before[name] for name, item in parameters.items()}
            for name, change in changes.items():
                if change is not None:
                    reached[name] |= change.detach().reshape(len(change), -1).abs().sum(1) > 0
            for callback in callbacks:
                callback.on_optimizer_step(None, SimpleNamespace(global_step=step), None, model=model)
            optimizer.zero_grad()
        return {name: float(rows.float().mean()) for name, rows in reached.items()}
