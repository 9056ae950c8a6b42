"""DeepSpeed's settings: what accelerate's file says of sharing, and the recipe's part of them."""

from __future__ import annotations

import importlib.util
import os
import warnings
from typing import Any

from peftselect.errors import InputError, UnsupportedError
from peftselect.training import ranks

#: where it is kept that DeepSpeed is asked for, once accelerate and transformers are no longer to know
TAKEN = "PEFTSELECT_USE_DEEPSPEED"
SHARED = {
    1: "optimizer states",
    2: "gradients and optimizer states",
    3: "weights, gradients and optimizer states",
}


def is_asked() -> bool:
    """Whether accelerate's file asks for DeepSpeed."""
    return "true" in (os.environ.get(ranks.DEEPSPEED, "").lower(), os.environ.get(TAKEN))


def take() -> None:
    """Keep to ourselves from here on that it does."""
    os.environ[TAKEN] = "true"
    os.environ.pop(ranks.DEEPSPEED, None)


def read() -> Any:
    """accelerate's plugin, as its file has it; InputError or UnsupportedError where it cannot serve."""
    if ranks.count() == 1:
        raise UnsupportedError("DeepSpeed is for several processes", "add --num_processes 2, or leave out DeepSpeed")
    if importlib.util.find_spec("deepspeed") is None:
        raise UnsupportedError("DeepSpeed is not installed", "pip install 'peftselect[deepspeed]'")
    from accelerate.utils import DeepSpeedPlugin

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a flag for ZeRO-3 that a file for ZeRO-2 has as well
            plugin = DeepSpeedPlugin()
    except ValueError as error:
        raise InputError(
            f"DeepSpeed's settings cannot be read: {str(error).splitlines()[0]}", "see accelerate's file"
        ) from error
    if plugin.zero_stage not in SHARED:
        raise UnsupportedError("DeepSpeed shares nothing under zero_stage 0", "write zero_stage: 1, 2 or 3")
    config = plugin.deepspeed_config
    ours = [name for name in ("optimizer", "scheduler") if name in config]
    ours += [name for name in ("fp16", "bf16", "torch_autocast") if config.get(name, {}).get("enabled") is True]
    if ours:
        raise UnsupportedError(
            f"DeepSpeed's settings have {' and '.join(ours)}, which the recipe has", "leave it out there, see --set"
        )
    if "nvme" in (plugin.offload_optimizer_device, plugin.offload_param_device):
        raise UnsupportedError("offloading to NVMe is not supported", "offload to cpu")
    return plugin


def fill_in(config: dict[str, Any], runner: Any) -> None:
    """The recipe's part of DeepSpeed's settings."""
    arguments = runner.args
    for name in ("fp16", "bf16", "torch_autocast"):
        config.pop(name, None)
    config |= {
        "train_micro_batch_size_per_gpu": arguments.per_device_train_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "train_batch_size": arguments.train_batch_size * arguments.gradient_accumulation_steps * ranks.count(),
        "gradient_clipping": arguments.max_grad_norm,
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,  # which is compiled
    }
    trained = sum(item.numel() for item in runner.model.parameters() if item.requires_grad)
    # a buffer for half a thousand million numbers by default, most of it for nothing where an adapter is trained
    config["zero_optimization"].setdefault("reduce_bucket_size", min(trained, 500_000_000))
