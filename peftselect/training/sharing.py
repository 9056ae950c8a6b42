"""What the processes of a run have in common besides each batch: here nothing, and the words in which to ask.

FSDP and DeepSpeed share a model and its optimizer in ways of their own, each in a module of its own; whoever trains,
saves or scores speaks these words to either. Functions that gather are called by all processes, in the same order.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from peftselect.method import Method
from peftselect.training import ranks

if TYPE_CHECKING:
    from peftselect.method import Candidate
    from peftselect.problem import Sharding


def beyond_gradients(method: Method) -> str:
    """Why a method's training needs more of a weight than its gradient; empty where it does not."""
    kind = type(method)
    if kind.optimizer is not Method.optimizer:
        return f"{method.title} has an optimizer of its own"
    if kind.callbacks is not Method.callbacks:
        return f"{method.title} changes weights between steps"
    return ""


class Sharing:
    """Nothing is shared: each process has the model and the optimizer whole."""

    @property
    def stage(self) -> Sharding:
        """What is shared, as estimates call it."""
        return "none"

    @property
    def words(self) -> str:
        """What is shared, and by what; empty where nothing is."""
        return ""

    def check(self, candidate: Candidate) -> None:
        """UnsupportedError where ``candidate`` cannot be trained so."""

    def before_loading(self) -> None:
        """Have every process load the model whole, for its score."""

    def explain(self, error: Exception, candidate: Candidate) -> None:
        """UnsupportedError where ``error`` says that this candidate's weights cannot be shared."""

    def settle(self, runner: Any, *, training: bool) -> None:
        """Let a new Trainer share while it trains; one that only predicts has the model whole in each process."""

    def leave(self, runner: Any) -> None:
        """A Trainer that trains no more shares nothing."""
        runner.states_are_shared = False

    def cutting(self, runner: Any) -> contextlib.AbstractContextManager[None]:
        """The block in which a Trainer's model and optimizer are cut into shares."""
        return contextlib.nullcontext()

    def is_shard(self, item: Any) -> bool:
        """Whether a tensor is the part of one that this process has."""
        return False

    def local(self, item: Any) -> Any:
        """This process's part of a tensor; all of it where nothing is shared."""
        return item

    def is_sharded(self, model: Any) -> bool:
        """Whether a model's weights are shared; passes and generation are then done by all processes together."""
        return False

    def reshard(self, model: Any) -> Any:
        """The model, none of whose weights is left gathered from its last pass: then all parameters are those
        trained."""
        return model

    def whole(self, item: Any) -> Any:
        """A copy of a tensor in RAM, gathered where it is shared."""
        return item.detach().to("cpu", copy=True)

    def gathered(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Copies of tensors in the RAM of the first process, nothing in the others."""
        return {name: self.whole(item) for name, item in tensors.items()} if ranks.is_first() else {}

    def put(self, item: Any, value: Any) -> None:
        """Set a tensor, or this process's part of it, to a whole ``value``, under ``torch.no_grad``."""
        item.copy_(value)

    def gather(self, model: Any) -> None:
        """Make shared weights whole again in the first process and drop them in the others; none runs the model
        again."""
        import torch

        found: dict[Any, Any] = {}
        for module in self.reshard(model).modules():
            # a copy: DeepSpeed's own kind of dictionary gathers what is looked up in it
            parameters: dict[str, Any] = dict(module._parameters)
            shares = {name: item for name, item in parameters.items() if item is not None and self.is_shard(item)}
            for name, item in shares.items():
                if item not in found:  # tied weights stay tied
                    value = self.whole(item)
                    value = value if ranks.is_first() else torch.empty(0, dtype=item.dtype)
                    found[item] = torch.nn.Parameter(value, requires_grad=item.requires_grad)
                parameters[name] = found[item]
            if shares:
                module._parameters = parameters

    def optimizer_state(self, model: Any, optimizer: Any) -> dict[str, Any]:
        """The states of an optimizer that is shared, under the parameters' names, gathered in RAM."""
        raise NotImplementedError("the Trainer saves an optimizer that is whole")

    def restore_optimizer(self, model: Any, optimizer: Any, state: dict[str, Any]) -> None:
        """Give each process its part of what :meth:`optimizer_state` gathered."""
        raise NotImplementedError("the Trainer loads an optimizer that is whole")
