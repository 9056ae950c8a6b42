"""What a method promises of the model it made: where it starts, that it can be switched off, that runs repeat."""

from __future__ import annotations

from typing import Any

from peftselect.method import LANGUAGE_MODEL_HEADS
from peftselect.testing.cases import MethodCases
from peftselect.testing.models import Case, batch, decoded_logits, logits, loss_of

#: how often a toy problem is tried again with more steps before its loss must have fallen
ROUNDS = 4


class BehaviourContract(MethodCases):
    """The part of the contract that looks at logits, losses and gradients."""

    def test_starts_as_the_base_model_if_it_says_so(self) -> None:
        """Untrained, the wrapped model gives the base model's logits (1e-5)."""
        import torch

        for case in self.few_cases() if self.method.starts_as_base else ():
            expected = logits(self.load(case), case)
            assert torch.allclose(logits(self.wrap(case), case), expected, atol=1e-5), str(case)

    def test_loss_falls_on_a_toy_problem(self) -> None:
        """A few steps on one batch bring the loss of that batch down."""
        for case in self.few_cases():
            model = self.wrap(case)
            before = self.loss(model, case)
            for _ in range(ROUNDS):
                self.train(model, case)
                after = self.loss(model, case)
                if after < before:
                    break
            assert after < before, f"{case}: {before} became {after}"

    def test_a_seeded_run_repeats(self) -> None:
        """Two runs from the same seed end with the same weights."""
        import torch

        for case in self.few_cases():
            first, second = (self.trained(case) for _ in range(2))
            other = dict(second.named_parameters())
            moved = [name for name, item in first.named_parameters() if not torch.equal(item, other[name])]
            assert moved == [], str(case)

    def test_switches_off_and_on_again(self) -> None:
        """Disabled, a trained adapter leaves the base model's logits; enabled, its own come back (1e-5)."""
        import torch

        for case in self.few_cases() if self.stacks() else ():
            base, model = logits(self.load(case), case), self.trained(case)
            own = logits(model, case)
            if model.active_peft_config.is_prompt_learning and not hasattr(model, "prepare_inputs_for_generation"):
                continue  # peft 0.21 cannot switch these off over a model that does not generate
            with model.disable_adapter():
                assert torch.allclose(logits(model, case), base, atol=1e-5), f"{case}: disabled, but not the base"
            assert torch.allclose(logits(model, case), own, atol=1e-5), f"{case}: enabled, but not itself"

    def test_holds_two_adapters_if_it_says_so(self) -> None:
        """A second adapter beside a trained one starts afresh, and the first is as it was when taken up again."""
        import torch

        for case in self.few_cases() if self.stacks() else ():
            model = self.trained(case)
            own = logits(model, case)
            torch.manual_seed(1)
            model.add_adapter("second", self.method().peft_config(case.shape, case.values, self.context(case)))
            model.set_adapter("second")
            assert not torch.allclose(logits(model, case), own, atol=1e-5), f"{case}: the second is the first"
            model.set_adapter("default")
            assert torch.allclose(logits(model, case), own, atol=1e-5), f"{case}: the first has changed"

    def test_checkpointed_gradients_are_the_same(self) -> None:
        """Computing activations again gives the gradients of keeping them (1e-5 of a tensor's largest)."""
        import torch

        for case in self.few_cases() if self.method.gradient_checkpointing else ():
            kept, again = (self.gradients(case, checkpointing=checkpointing) for checkpointing in (False, True))
            assert set(kept) == set(again), str(case)
            for name, gradient in kept.items():
                scale = float(gradient.abs().max()) + 1e-6
                assert torch.allclose(again[name], gradient, atol=1e-5 * scale + 1e-7), f"{case}: {name}"

    def test_decodes_with_a_cache_if_it_says_so(self) -> None:
        """Decoding step by step with kept keys and values gives the logits of reading the whole text (1e-4)."""
        import torch

        for case in self.few_cases() if self.method.decodes_with_cache else ():
            if case.shape.head.kind in LANGUAGE_MODEL_HEADS:
                step_by_step, at_once = decoded_logits(self.trained(case), case)
                assert torch.allclose(step_by_step, at_once, atol=1e-4), str(case)

    def stacks(self) -> bool:
        """Whether the method's adapters lie beside the base and beside one another."""
        return self.method.saves_adapter and self.method.multi_adapter and not self.method.needs

    def trained(self, case: Case) -> Any:
        """A wrapped model after a few steps from seed 0."""
        model = self.wrap(case)
        self.train(model, case)
        return model

    def loss(self, model: Any, case: Case) -> float:
        """The loss of the toy batch, nothing dropped."""
        import torch

        with torch.no_grad():
            return float(loss_of(model.eval()(**batch(case, self.method().prepended_positions(case.values)))))

    def gradients(self, case: Case, *, checkpointing: bool) -> dict[str, Any]:
        """Gradients of the first step's loss, by parameter."""
        import torch

        model = self.load(case)
        if checkpointing:
            model.gradient_checkpointing_enable({"use_reentrant": False})
        model = self.apply(model, case).train()
        torch.manual_seed(0)
        loss_of(model(**batch(case, self.method().prepended_positions(case.values)))).backward()
        return {name: item.grad.clone() for name, item in model.named_parameters() if item.grad is not None}
