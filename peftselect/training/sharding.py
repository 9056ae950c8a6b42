"""Weights shared among the processes of a run (FSDP2), where accelerate's own file asks for it.

accelerate shards the model once the Trainer has its optimizer; what is saved is gathered first, so that files are those
of a run of one process. Loading and the base model's score need the base whole in each process.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING, Any

from peftselect.errors import UnsupportedError
from peftselect.method import Method
from peftselect.training import ranks

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftselect.method import Candidate

_FSDP, _DEEPSPEED = "ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"

_HINT = "leave out FSDP, or choose --method lora"

#: how torch says so: a parameter of two groups, a second cut through one, a part where the whole is wanted
_NOT_BY_LAYERS = ("managed by another FSDP group", "Invariant encountered", "got mixed torch.Tensor and DTensor")


def wanted() -> bool:
    """Whether this run's processes are to share weights by FSDP."""
    return ranks.count() > 1 and os.environ.get(_FSDP, "").lower() == "true"


def check(candidate: Candidate) -> None:
    """UnsupportedError where weights cannot be shared: by what launched the run, or under this candidate."""
    if os.environ.get(_DEEPSPEED, "").lower() == "true":
        raise UnsupportedError("DeepSpeed is not supported", "let accelerate's file say distributed_type: FSDP")
    if not wanted():
        return
    if os.environ.get("FSDP_VERSION") != "2":
        raise UnsupportedError("FSDP's first version is not supported", "write fsdp_version: 2 into accelerate's file")
    method, kind = candidate.method, type(candidate.method)
    why = ""
    if candidate.recipe.quantization:
        why = "a quantised base cannot be cut into shards"
    elif kind.optimizer is not Method.optimizer:
        why = f"{method.title} has an optimizer of its own"
    elif kind.callbacks is not Method.callbacks:
        why = f"{method.title} changes weights between steps"
    if why:
        raise UnsupportedError(f"FSDP is not for this run: {why}", _HINT)


def load_everywhere() -> None:
    """Have every process load the weights: transformers would leave them out in all but the first, which is to be
    spared for a base model that all score."""
    if wanted():
        os.environ["FSDP_CPU_RAM_EFFICIENT_LOADING"] = "false"


def explain(error: Exception, candidate: Candidate) -> None:
    """UnsupportedError where ``error`` says that a method's weights belong to several layers, or are used outside of
    the layers for which they are gathered."""
    if wanted() and any(words in str(error) for words in _NOT_BY_LAYERS):
        raise UnsupportedError(
            f"FSDP is not for {candidate.method.title}: its weights do not go by layers", _HINT
        ) from error


def settle(runner: Any, *, training: bool) -> None:
    """Let a Trainer share weights while it trains; one that only predicts has the model whole in each process."""
    if not wanted():
        return
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state = runner.accelerator.state
    if getattr(state, "fsdp_plugin", None) is None:  # accelerate turns it on for cards alone; torch has it on CPUs too
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        state.distributed_type = DistributedType.FSDP
    runner.is_fsdp_enabled = training
    plugin = state.fsdp_plugin
    if training and plugin.auto_wrap_policy is not None and plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = _layers(runner.model)


def _layers(model: Any) -> list[str] | None:
    """Classes of the model's layers, without what holds the embeddings (BERT names it too): accelerate cuts those by
    themselves, and nothing can be cut twice."""
    embeddings = model.get_input_embeddings()
    holders = {type(item).__name__ for item in model.modules() if any(part is embeddings for part in item.modules())}
    present = {type(item).__name__ for item in model.modules()}
    return sorted(present & set(model._no_split_modules or ()) - holders) or None


@contextlib.contextmanager
def cutting(model: Any) -> Iterator[None]:
    """The block in which accelerate cuts the model.

    It would cut the embeddings of an encoder-decoder by themselves, though both halves have them too; left in the
    outermost group, all that share a tensor are together.
    """
    together = wanted() and model.config.is_encoder_decoder
    if together:
        model.get_input_embeddings = model.get_output_embeddings = lambda: None
    try:
        yield
    finally:
        if together:
            del model.get_input_embeddings, model.get_output_embeddings


def is_shard(item: Any) -> bool:
    """Whether a tensor is the part of one that this process has."""
    if ranks.count() == 1:
        return False
    from torch.distributed.tensor import DTensor

    return isinstance(item, DTensor)


def local(item: Any) -> Any:
    """This process's part of a tensor; all of it where nothing is shared."""
    return item.to_local() if is_shard(item) else item


def is_sharded(model: Any) -> bool:
    """Whether a model's weights are shared; forward passes and generation are then done by all processes together."""
    return bool(_units(model))


def reshard(model: Any) -> Any:
    """The model, none of whose weights is left gathered from its last pass: then all parameters are those trained."""
    for module in _units(model):
        module.reshard()
    return model


def _units(model: Any) -> list[Any]:
    if ranks.count() == 1:
        return []
    from torch.distributed.fsdp import FSDPModule

    return [module for module in model.modules() if isinstance(module, FSDPModule)]


def whole(item: Any) -> Any:
    """A copy of a tensor in RAM, gathered where it is shared: to be called by all processes."""
    item = item.detach()
    return (item.full_tensor() if is_shard(item) else item).to("cpu", copy=True)


def gathered(tensors: dict[str, Any]) -> dict[str, Any]:
    """Copies of tensors in the RAM of the first process, nothing in the others: to be called by all."""
    found = {}
    for name, item in tensors.items():
        if ranks.is_first():
            found[name] = whole(item)
        elif is_shard(item):
            item.detach().full_tensor()
    return found


def put(item: Any, value: Any) -> None:
    """Set a tensor, or this process's part of it, to a whole ``value``, under ``torch.no_grad``."""
    if not is_shard(item):
        item.copy_(value)
        return
    from torch.distributed.tensor import distribute_tensor

    item.copy_(distribute_tensor(value.to(item.device, item.dtype), item.device_mesh, item.placements))


def gather(model: Any) -> None:
    """Make shared weights whole again in the first process and drop them in the others; none runs the model again."""
    import torch

    found: dict[Any, Any] = {}
    for module in reshard(model).modules():
        for name, item in module._parameters.items():
            if item is None or not is_shard(item):
                continue
            if item not in found:  # tied weights stay tied
                value = whole(item)
                value = value if ranks.is_first() else torch.empty(0, dtype=item.dtype)
                found[item] = torch.nn.Parameter(value, requires_grad=item.requires_grad)
            module._parameters[name] = found[item]


def optimizer_state(model: Any, optimizer: Any) -> dict[str, Any]:
    """The optimizer's state under the parameters' names, gathered in RAM: to be called by all processes."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_optimizer_state_dict

    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return dict(get_optimizer_state_dict(reshard(model), optimizer, options=options))


def restore_optimizer(model: Any, optimizer: Any, state: dict[str, Any]) -> None:
    """Give each process its part of what :func:`optimizer_state` gathered."""
    from torch.distributed.checkpoint.state_dict import StateDictOptions, set_optimizer_state_dict

    set_optimizer_state_dict(model, optimizer, state, options=StateDictOptions(full_state_dict=True))
