"""The conformance suite of a method plugin: inherit it in a test class, name the method, run pytest.

    from peftselect.testing import MethodContract

    class TestMyMethod(MethodContract):
        method = MyMethod

Models are tiny, random and made from configurations: no network, a few seconds a method.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from peftselect.method import ALL_ARCHITECTURES, ALL_HEADS, PROMPTED, VECTORS
from peftselect.modeling import count_parameters, merge
from peftselect.testing.behaviour import BehaviourContract
from peftselect.testing.models import auto_class, logits, saved_parameters

__all__ = ["MethodContract"]


class MethodContract(BehaviourContract):
    """What every method promises. Subclasses set :attr:`method`."""

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
        assert made.heads <= ALL_HEADS | VECTORS | PROMPTED
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
            if case.shape.head.kind in ("question_answering", "multiple_choice"):
                # a bias of such a head moves all positions or choices alike: what gradient it has is rounding
                head = re.compile(r"(qa_outputs|classifier).*bias$")
                seen = {name: share for name, share in seen.items() if not head.search(name)}
            assert [name for name, share in seen.items() if share == 0] == [], f"{case}: no gradient"
            # tables of words are among all weights, and most words not in a batch
            if self.method.reaches_all_rows and "all" not in self.method.acts_on:
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
        """A merged model gives the logits of the unmerged one (1e-5)."""
        import torch

        for case in self.few_cases() if self.method.mergeable else ():
            model = self.wrap(case)
            self.train(model, case)
            before = logits(model, case)
            assert torch.allclose(logits(merge(model), case), before, atol=1e-5), str(case)

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
                numbers: tuple[float, ...] = (*traits.kept_bytes_per_token, traits.kept_bytes_per_step)
                numbers += (traits.held_bytes, traits.virtual_tokens, traits.prefix_positions)
                assert all(math.isfinite(number) and number >= 0 for number in numbers), str(case)
                told = traits.backward_reaches == "nothing"
                assert told == self.method.forward_only, "forward_only and memory() disagree"
                positions = self.method().prepended_positions(case.values)
                assert positions == traits.virtual_tokens, "prepended_positions() and memory() disagree"
