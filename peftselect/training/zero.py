"""Weights, gradients and optimizer states shared among the processes of a run by DeepSpeed's ZeRO.

accelerate's file says what is shared and where it lies; batch, accumulation, optimizer, schedule, clipping and
precision are the recipe's. DeepSpeed's own checkpoints are pickled, so none is written: what is shared is gathered
by the names of the parameters (Rajbhandari et al. 2020, arXiv:1910.02054).
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from peftselect.errors import UnsupportedError
from peftselect.training import ranks, zero_settings, zero_states
from peftselect.training.sharing import Sharing, beyond_gradients

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftselect.method import Candidate
    from peftselect.problem import Sharding

#: optimizers that treat each number by itself: ZeRO lays all weights end to end and cuts them anywhere
_BY_NUMBER = ("adamw", "adamw_foreach")

#: how DeepSpeed and torch say so
_NOT_GATHERED = ("LinearFunctionForZeroStage3", "expected shape compatible with [0]", "ZeroParamStatus.NOT_AVAILABLE")


class Zero(Sharing):
    """Stages 1 and 2 leave the model whole in each process; in the third each has a part of every weight."""

    def __init__(self) -> None:
        #: how the processes are together for accelerate while DeepSpeed is left out
        self._apart: Any = None

    @property
    def stage(self) -> Sharding:
        """The file's."""
        return {1: "zero1", 2: "zero2", 3: "zero3"}[zero_settings.read().zero_stage]  # type: ignore[return-value]

    @property
    def words(self) -> str:
        """What the file's stage shares."""
        number = zero_settings.read().zero_stage
        return f"{zero_settings.SHARED[number]} by DeepSpeed (ZeRO-{number})"

    def check(self, candidate: Candidate) -> None:
        """UnsupportedError for methods and optimizers that need more of a weight than a process has."""
        why, hint = beyond_gradients(candidate.method), "leave out DeepSpeed, or choose --method lora"
        if candidate.recipe.optimizer not in _BY_NUMBER:
            why, hint = f"{candidate.recipe.optimizer} looks at whole weights", "add --set optimizer=adamw"
        if why:
            raise UnsupportedError(f"DeepSpeed is not for this run: {why}", hint)

    def before_loading(self) -> None:
        """Hide from transformers and accelerate that DeepSpeed is asked for until there is something to train: they
        would share the base while it is loaded and scored."""
        zero_settings.take()

    def explain(self, error: Exception, candidate: Candidate) -> None:
        """UnsupportedError where ``error`` says that a weight was not gathered when it was used."""
        if any(words in str(error) for words in _NOT_GATHERED):
            raise UnsupportedError(
                f"ZeRO-3 is not for {candidate.method.title}: it uses weights outside of their layers' passes",
                "write zero_stage: 2, or choose --method lora",
            ) from error

    def settle(self, runner: Any, *, training: bool) -> None:
        """Let accelerate start DeepSpeed's engine when the Trainer prepares its training."""
        if not training:
            self.leave(runner)
            return
        from accelerate import PartialState
        from accelerate.utils import DistributedType
        from transformers.integrations import deepspeed as glue

        if runner.args.mixed_precision == "fp16":
            raise UnsupportedError(
                "DeepSpeed is not for fp16 here",
                "choose bf16 or fp32: --set precision=fp32, and so in accelerate's file",
            )
        plugin = zero_settings.read()
        zero_settings.fill_in(plugin.deepspeed_config, runner)
        state, processes = runner.accelerator.state, PartialState()
        self._apart = self._apart or processes.distributed_type
        state.deepspeed_plugins = plugin
        state.distributed_type = processes.distributed_type = DistributedType.DEEPSPEED
        runner.accelerator.deepspeed_engine_wrapped = None
        glue.propagate_args_to_deepspeed(runner.accelerator, runner.args)
        glue.unset_hf_deepspeed_config()  # what is loaded from here on is loaded whole as well
        runner.is_deepspeed_enabled = runner.states_are_shared = True

    def leave(self, runner: Any) -> None:
        """Let accelerate forget about DeepSpeed."""
        from accelerate import PartialState

        runner.is_deepspeed_enabled = False
        if self._apart:
            runner.accelerator.state.distributed_type = PartialState().distributed_type = self._apart
        super().leave(runner)

    @contextlib.contextmanager
    def cutting(self, runner: Any) -> Iterator[None]:
        """The engine computes in the weights' own precision, under the autocast of a run without DeepSpeed."""
        import deepspeed

        # where nothing was built in advance it would compile a kernel for messages between the processes of a CPU
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
        accelerator, model = runner.accelerator, runner.model
        if accelerator.native_amp:
            accelerator.prepare_model(model, device_placement=False, evaluation_mode=True)
            accelerator._models.remove(model)
        count = getattr(model, "num_parameters", None)
        numbers = {asked: count(exclude_embeddings=asked) for asked in (False, True)} if count else {}
        yield
        if count:  # transformers would count what this process has of the weights
            model.num_parameters = lambda only_trainable=False, exclude_embeddings=False: numbers[exclude_embeddings]

    def is_shard(self, item: Any) -> bool:
        """Whether it is a parameter that ZeRO-3 has cut."""
        return hasattr(item, "ds_id")

    def local(self, item: Any) -> Any:
        """This process's part, without what fills it up."""
        if not self.is_shard(item):
            return item
        share = item.ds_tensor.numel()
        return item.ds_tensor.narrow(0, 0, min(max(item.ds_numel - share * ranks.number(), 0), share))

    def is_sharded(self, model: Any) -> bool:
        """Whether ZeRO-3 has cut it."""
        return any(self.is_shard(item) for item in model.parameters())

    def whole(self, item: Any) -> Any:
        """A copy in RAM; of a weight that is trained in 16 bits, the 32 bits that its optimizer keeps."""
        if self.is_shard(item):
            from deepspeed import zero

            with zero.GatheredParameters([item]):
                return self._kept(item)
        return self._kept(item)

    def _kept(self, item: Any) -> Any:
        import torch
        from deepspeed.utils import safe_get_full_fp32_param

        kept = None
        if item.requires_grad and item.dtype != torch.float32:
            kept = safe_get_full_fp32_param(item)
        return (item.detach() if kept is None else kept).to("cpu", copy=True)

    def gathered(self, tensors: dict[str, Any]) -> dict[str, Any]:
        """Copies in the first process; the others give their parts."""
        found = {}
        for name, item in tensors.items():
            value = self.whole(item)
            if ranks.is_first():
                found[name] = value
        return found

    def put(self, item: Any, value: Any) -> None:
        """The weight, and what its optimizer keeps of it."""
        if self.is_shard(item):
            from deepspeed import zero

            with zero.GatheredParameters([item], modifier_rank=0):
                item.copy_(value)
        else:
            item.copy_(value)
        zero_states.put(item, value)

    def gather(self, model: Any) -> None:
        """Whole weights in the first process, once the engine has let go of them."""
        for item in model.parameters():
            if hasattr(item, "_z3_optimizer"):  # peft runs the network of P-tuning once more to save what it gives
                item._z3_optimizer.destroy()
                break
        super().gather(model)

    def optimizer_state(self, model: Any, optimizer: Any) -> dict[str, Any]:
        """As :mod:`zero_states` gathers it."""
        return zero_states.gathered(model, optimizer)

    def restore_optimizer(self, model: Any, optimizer: Any, state: dict[str, Any]) -> None:
        """As :mod:`zero_states` hands it out."""
        zero_states.restore(model, optimizer, state)
