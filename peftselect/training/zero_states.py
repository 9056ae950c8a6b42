"""What DeepSpeed's optimizers keep of each weight, by name: gathered from the processes, and handed out again.

ZeRO lays the weights of a group end to end and gives each process a stretch of them, its optimizer's own tensor.
"""

from __future__ import annotations

from typing import Any

from peftselect.training import ranks


def gathered(model: Any, optimizer: Any) -> dict[str, Any]:
    """States by parameter and key, in the RAM of the first process; beside them what is one number for all (steps),
    and the groups' settings."""
    from deepspeed.utils import safe_get_full_optimizer_state

    _link(optimizer)
    first = optimizer.optimizer.state[_flats(optimizer)[0]]
    shared = sorted(key for key, value in first.items() if getattr(value, "ndim", 0))
    states: dict[str, dict[str, Any]] = {}
    for name, item in _trained(model):
        whole = {key: safe_get_full_optimizer_state(item, key) for key in shared}
        if ranks.is_first():
            states[name] = {key: value.to("cpu", copy=True) for key, value in whole.items()}
    groups = optimizer.optimizer.param_groups
    return {
        "state": states,
        "numbers": {key: value for key, value in first.items() if key not in shared},
        "groups": [{key: value for key, value in group.items() if key != "params"} for group in groups],
    }


def restore(model: Any, optimizer: Any, state: dict[str, Any]) -> None:
    """Give each process its part of what :func:`gathered` gives.

    ZeRO has no states before its first step, so room is made for them.
    """
    import torch

    plain = optimizer.optimizer
    for group, saved in zip(plain.param_groups, state["groups"], strict=True):
        group.update(saved)
    shared = next(iter(state["state"].values()))
    on_device = any(group.get("fused") or group.get("capturable") for group in plain.param_groups)
    for flat in _flats(optimizer):
        where = flat.device if on_device else "cpu"
        numbers = {key: value.to(where, copy=True) for key, value in state["numbers"].items()}
        plain.state[flat] = {**numbers, **{key: torch.zeros_like(flat) for key in shared}}
    _link(optimizer)
    for name, item in _trained(model):
        for key, value in state["state"][name].items():
            put(item, value, key)


def _trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, item) for name, item in model.named_parameters() if item.requires_grad]


def _flats(optimizer: Any) -> list[Any]:
    """The optimizer's own tensors: groups of weights, laid end to end, this process's part of them."""
    third = getattr(optimizer, "fp32_partitioned_groups_flat", None)
    return list(optimizer.single_partition_of_fp32_groups if third is None else third)


def _link(optimizer: Any) -> None:
    """Have stages 1 and 2 look again where the states of a weight are: they look once, when only the first group of
    weights has stepped."""
    if hasattr(optimizer, "_hp_optimizer_states_linked"):
        optimizer._hp_optimizer_states_linked = False
        optimizer._lazy_init_hp_params_optimizer_state()


def put(item: Any, value: Any, key: str | None = None) -> None:
    """Set what the optimizer keeps for a trained weight under ``key`` (None: the weight itself) to a whole value."""
    import torch
    from deepspeed import utils

    if not item.requires_grad:
        return
    if not hasattr(item, "ds_id"):
        if key is None:
            utils.safe_set_full_fp32_param(item, value)
        else:
            utils.safe_set_full_optimizer_state(item, value, key)
        return
    # DeepSpeed's own function for whole values fails where they do not divide by the number of processes
    share = item.ds_tensor.numel()
    padded = torch.zeros(share * ranks.count(), dtype=value.dtype)
    padded[: value.numel()] = value.flatten()
    part = padded.narrow(0, share * ranks.number(), share)
    if key is None:
        utils.safe_set_local_fp32_param(item, part)
    else:
        utils.safe_set_local_optimizer_state(item, part, key)
