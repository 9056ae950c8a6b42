"""Weights shared among the processes of a run by PyTorch's FSDP2.

accelerate shards the model once the Trainer has its optimizer.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from peftselect.errors import UnsupportedError
from peftselect.training import ranks
from peftselect.training.sharing import Sharing, beyond_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftselect.method import Candidate
    from peftselect.problem import Sharding

_HINT = "leave out FSDP, or choose --method lora"

#: how torch says so: a parameter of two groups, a second cut through one, a part where the whole is wanted
_NOT_BY_LAYERS = ("managed by another FSDP group", "Invariant encountered", "got mixed torch.Tensor and DTensor")


def is_asked() -> bool:
    """Whether this run's processes are to share weights by FSDP."""
    return ranks.count() > 1 and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"


class Fsdp(Sharing):
    """Each process has a part of every weight, as a DTensor; layers are gathered as they are run."""

    @property
    def stage(self) -> Sharding:
        """Full sharding, which is ZeRO's third stage."""
        return "zero3"

    @property
    def words(self) -> str:
        """Weights, with what goes with them."""
        return "weights by FSDP"

    def check(self, candidate: Candidate) -> None:
        """UnsupportedError for FSDP's first version, and for methods that reach beyond the layers."""
        if os.environ.get("FSDP_VERSION") != "2":
            raise UnsupportedError(
                "FSDP's first version is not supported", "write fsdp_version: 2 into accelerate's file"
            )
        why = beyond_gradients(candidate.method)
        if candidate.recipe.quantization:
            why = "a quantised base cannot be cut into shards"
        if why:
            raise UnsupportedError(f"FSDP is not for this run: {why}", _HINT)

    def before_loading(self) -> None:
        """transformers would leave the weights out in all but the first process, which is to be spared for a base
        model that all score."""
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"

    def explain(self, error: Exception, candidate: Candidate) -> None:
        """UnsupportedError where ``error`` says that a method's weights belong to several layers, or are used outside
        of the layers for which they are gathered."""
        if any(words in str(error) for words in _NOT_BY_LAYERS):
            raise UnsupportedError(
                f"FSDP is not for {candidate.method.title}: its weights do not go by layers", _HINT
            ) from error

    def settle(self, runner: Any, *, training: bool) -> None:
        """Let accelerate shard when the Trainer prepares its training."""
        from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

        state = runner.accelerator.state
        if getattr(state, "fsdp_plugin", None) is None:  # accelerate: for cards alone; torch has it on CPUs too
            state.fsdp_plugin = FullyShardedDataParallelPlugin()
            state.distributed_type = DistributedType.FSDP
        runner.is_fsdp_enabled = runner.states_are_shared = training
        plugin = state.fsdp_plugin
        if training and plugin.auto_wrap_policy is not None and plugin.transformer_cls_names_to_wrap is None:
            plugin.transformer_cls_names_to_wrap = _layers(runner.model)

    def leave(self, runner: Any) -> None:
        """Let the Trainer see a model like any other."""
        runner.is_fsdp_enabled = False
        super().leave(runner)

    @contextlib.contextmanager
    def cutting(self, runner: Any) -> Iterator[None]:
        """accelerate would cut the embeddings of an encoder-decoder by themselves, though both halves have them too;
        left in the outermost group, all that share a tensor are together."""
        model = runner.model
        together = model.config.is_encoder_decoder
        if together:
            model.get_input_embeddings = model.get_output_embeddings = lambda: None
        try:
            yield
        finally:
            if together:
                del model.get_input_embeddings, model.get_output_embeddings

    def is_shard(self, item: Any) -> bool:
        """Whether it is a DTensor."""
        from torch.distributed.tensor import DTensor

        return isinstance(item, DTensor)

    def local(self, item: Any) -> Any:
        """This process's part."""
        return item.to_local() if self.is_shard(item) else item

    def is_sharded(self, model: Any) -> bool:
        """Whether a module of it is gathered as it is run."""
        return bool(_units(model))

    def reshard(self, model: Any) -> Any:
        """The model with its parts in place."""
        for module in _units(model):
            module.reshard()
        return model

    def whole(self, item: Any) -> Any:
        """A copy in RAM, of all parts."""
        item = item.detach()
        return (item.full_tensor() if self.is_shard(item) else item).to("cpu", copy=True)

    def gathered(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Copies in the first process; the others give their parts."""
        found = {}
        for name, item in tensors.items():
            if ranks.is_first():
                found[name] = self.whole(item)
            elif self.is_shard(item):
                item.detach().full_tensor()
        return found

    def put(self, item: Any, value: Any) -> None:
        """Each process takes its part."""
        if not self.is_shard(item):
            item.copy_(value)
            return
        from torch.distributed.tensor import distribute_tensor

        item.copy_(distribute_tensor(value.to(item.device, item.dtype), item.device_mesh, item.placements))

    def optimizer_state(self, model: Any, optimizer: Any) -> dict[str, Any]:
        """As torch gathers it."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

        options = StateDictOptions(full_state_dict=True, cpu_offload=True)
        return dict(get_optimizer_state_dict(self.reshard(model), optimizer, options=options))

    def restore_optimizer(self, model: Any, optimizer: Any, state: dict[str, Any]) -> None:
        """As torch hands it out."""
        from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

        set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))


def _layers(model: Any) -> list[str] | None:
    """Classes of the model's layers, without what holds the embeddings (BERT names it too): accelerate cuts those by
    themselves, and nothing can be cut twice."""
    embeddings = model.get_input_embeddings()
    holders = {type(item).__name__ for item in model.modules() if any(part is embeddings for part in item.modules())}
    present = {type(item).__name__ for item in model.modules()}
    return sorted(present & set(model._no_split_modules or ()) - holders) or None


def _units(model: Any) -> list[Any]:
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]
