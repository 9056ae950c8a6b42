"""The conformance suite of a method plugin: inherit it in a test class, name the method, run pytest.

    from peftselect.testing import MethodContract

    class TestMyMethod(MethodContract):
        method = MyMethod

Models are tiny, random and made from configurations: no network, a few seconds a method.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

from peftselect.method import ALL_ARCHITECTURES, ALL_HEADS, VECTORS, ApplyContext, Method, Recipe, resolve_values
from peftselect.modeling import AUTO_CLASSES, count_parameters, load_model, merge
from peftselect.problem import BaseModel
from peftselect.testing.models import (
    LABELS,
    TINY,
    Case,
    auto_class,
    batch,
    logits,
    loss_of,
    quiet,
    saved_parameters,
    tiny_folder,
    tiny_shape,
)

#: optimizer steps that a tiny model is trained for
STEPS = 6


class MethodContract:
    """What every method promises. Subclasses set :attr:`method`."""

    method: ClassVar[type[Method]]
    #: settings to try, each a mapping of overrides of the defaults
    variants: ClassVar[tuple[Mapping[str, Any], ...]] = ({},)

    def test_describes_itself(self) -> None:
        """Names, texts and sets are there and within the vocabulary."""
        made = self.method()
        assert made.name == made.name.lower() == made.name.replace("-", "_")
        assert made.title
        assert made.summary.endswith(".")
        assert "\n" not in made.summary
        assert self.method.__doc__, "a method explains itself in a docstring"
        assert all(reference.url.startswith("http") and reference.year > 1980 for reference in made.references)
        assert made.references, "a method says where it comes from"
        assert made.heads <= ALL_HEADS | VECTORS
        assert made.heads
        assert made.architectures <= ALL_ARCHITECTURES
        assert made.acts_on, "acts_on says which parts of the network change"

    def test_defaults_lie_in_their_ranges(self) -> None:
        """Each default is a value that a user may set; the learning rate is one of them."""
        made = self.method()
        for case in self.cases():
            settings = {setting.name: setting for setting in made.hyperparameters(case.shape)}
            assert "learning_rate" in settings, "learning_rate is missing from hyperparameters()"
            for setting in settings.values():
                assert setting.help, setting.name
                for value in (setting.default, *setting.search):
                    assert setting.parse(value) == value, f"{setting.name}={value!r} does not survive parse()"
            rate = settings["learning_rate"].parse(made.learning_rate(case.values))
            assert rate > 0

    def test_counts_are_exact(self) -> None:
        """``trainable_parameters`` equals what the wrapped model has, wherever the method can serve."""
        made = self.method()
        for case in self.cases():
            trainable, total = count_parameters(self.wrap(case))
            assert trainable == made.trainable_parameters(case.shape, case.values), str(case)
            assert 0 < trainable <= total, str(case)
            assert made.changed_parameters(case.shape, case.values) > 0, str(case)

    def test_counts_are_exact_over_16_bits(self) -> None:
        """peft makes some adapters otherwise over a base in bfloat16; the count must not change with it."""
        import torch

        made = self.method()
        for case in self.few_cases() if made.quantized_base != "required" else ():
            model = self.apply(self.load(case).to(torch.bfloat16), case)
            assert count_parameters(model)[0] == made.trainable_parameters(case.shape, case.values), str(case)

    def test_gradients_flow_where_they_should(self) -> None:
        """After a few steps every trained tensor has moved, most rows are alive, and nothing frozen has changed."""
        for case in self.few_cases():
            model = self.wrap(case)
            frozen = {name: item.detach().clone() for name, item in model.named_parameters() if not item.requires_grad}
            seen = self.train(model, case)
            assert [name for name, share in seen.items() if share == 0] == [], f"{case}: no gradient"
            if self.method.saves_adapter:
                assert [name for name, share in seen.items() if share <= 0.6] == [], f"{case}: dead rows"
            moved = [name for name, item in model.named_parameters() if name in frozen and (item != frozen[name]).any()]
            assert moved == [], f"{case}: frozen, but changed"

    def test_reloads_with_plain_peft(self, tmp_path: Path) -> None:
        """What was saved gives the same logits (1e-5) on a fresh base, and is as large as the method says."""
        import torch
        from peft import PeftModel

        made = self.method()
        for number, case in enumerate(self.few_cases()):
            folder = tmp_path / str(number)
            model = self.wrap(case)
            self.train(model, case)
            model.save_pretrained(folder)
            if made.saves_adapter:
                again = PeftModel.from_pretrained(self.load(case), folder)
                saved = saved_parameters(folder / "adapter_model.safetensors")
                told = made.saved_parameters(case.shape, case.values)
                largest = made.trainable_parameters(case.shape, case.values) * 1.1
                assert saved == told or (not made.saved_count_is_exact and saved < largest), f"{case}: {saved}, {told}"
            else:
                again = auto_class(case.shape).from_pretrained(folder)
            assert torch.allclose(logits(again, case), logits(model, case), atol=1e-5), str(case)

    def test_merges_if_it_says_so(self) -> None:
        """A merged model gives the logits of the unmerged one (1e-4)."""
        import torch

        for case in self.few_cases() if self.method.mergeable else ():
            model = self.wrap(case)
            self.train(model, case)
            before = logits(model, case)
            assert torch.allclose(logits(merge(model), case), before, atol=1e-4), str(case)

    def test_gradient_checkpointing_works_if_it_says_so(self) -> None:
        """Gradients still reach every trained tensor when activations are computed again."""
        for case in self.few_cases() if self.method.gradient_checkpointing else ():
            model = self.load(case)
            model.gradient_checkpointing_enable({"use_reentrant": False})
            seen = self.train(self.apply(model, case), case)
            assert [name for name, share in seen.items() if share == 0] == [], str(case)

    def test_quantised_base_works_if_it_says_so(self) -> None:
        """Over a 4-bit base the method trains as many parameters as over a full one."""
        made = self.method()
        for case in self.few_cases() if made.quantized_base != "no" else ():
            model = self.apply(self.load(case, quantization="nf4"), case, quantized=True)
            assert count_parameters(model)[0] == made.trainable_parameters(case.shape, case.values), str(case)
            seen = self.train(model, case)
            assert [name for name, share in seen.items() if share == 0] == [], str(case)

    def test_memory_hook_answers(self) -> None:
        """Bytes and positions are finite and not negative."""
        for case in self.cases():
            for compute_bytes in (2, 4):
                traits = self.method().memory(case.shape, case.values, compute_bytes)
                numbers = (*traits.kept_bytes_per_token, traits.virtual_tokens, traits.prefix_positions)
                assert all(math.isfinite(number) and number >= 0 for number in numbers), str(case)
                positions = self.method().prepended_positions(case.values)
                assert positions == traits.virtual_tokens, "prepended_positions() and memory() disagree"

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
        """Enough of :meth:`cases` to see every architecture, every head and every variant once."""
        few: list[Case] = []
        seen: set[Any] = set()
        for case in self.cases():
            traits = {case.shape.model_type, case.shape.head.kind, *map(str, [sorted(case.values.items())])}
            if traits - seen:
                few.append(case)
            seen |= traits
        return few

    def load(self, case: Case, quantization: Any = None) -> Any:
        """The tiny base model, quantised where the method needs it."""
        if self.method.quantized_base == "required":
            quantization = "nf4"
        recipe = Recipe("fp32", quantization, 2, 1, False, 1e-2, 1, 16)
        with quiet():
            return load_model(case.base, case.shape, recipe, LABELS if case.shape.head.num_labels else ())

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
        return ApplyContext(case.shape, "test", total_steps=10 * STEPS, quantized=quantized)

    def train(self, model: Any, case: Case) -> dict[str, float]:
        """Take a few steps; share of the rows of each trained tensor that got a gradient at least once."""
        import torch

        parameters = {name: item for name, item in model.named_parameters() if item.requires_grad}
        reached = {name: torch.zeros(len(item), dtype=torch.bool) for name, item in parameters.items()}
        optimizer = self.method().optimizer(model, case.values) or torch.optim.AdamW(parameters.values(), lr=1e-2)
        callbacks = self.method().callbacks(case.values, self.context(case))
        model.train()
        for step in range(STEPS):
            loss = loss_of(model(**batch(case, self.method().prepended_positions(case.values))))
            assert torch.isfinite(loss), f"{case}: the loss is {loss}"
            loss.backward()
            for name, item in parameters.items():
                if item.grad is not None:
                    reached[name] |= item.grad.detach().reshape(len(item), -1).abs().sum(1) > 0
            optimizer.step()
            for callback in callbacks:
                callback.on_optimizer_step(None, SimpleNamespace(global_step=step), None, model=model)
            optimizer.zero_grad()
        return {name: float(rows.float().mean()) for name, rows in reached.items()}
