"""What is hung on the Trainer: the best state, early stopping, diverging losses, peak memory, progress."""

from __future__ import annotations

import copy
import math
import statistics
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback

from peftselect.training import ranks, sharding
from peftselect.training.unfinished import saving
from peftselect.words import size

if TYPE_CHECKING:
    from pathlib import Path

    from peftselect.training.measurement import PeakMemory
    from peftselect.training.progress import Observer

#: name under which :class:`TaskTrainer` reports the task's primary metric
SCORE = "eval_score"
#: a gain smaller than this is none
LEAST_GAIN = 1e-4
#: a median of the last OF_LATE losses of so many times the first (or LEAST_LOSS, if that was less) is an explosion
EXPLODED, LEAST_LOSS, OF_LATE = 3.0, 1.0, 5


class KeepBest(TrainerCallback):  # type: ignore[misc]
    """Keeps every trained tensor of the best evaluation in a safetensors file, and stops when nothing improves in the
    second half of the steps.

    The Trainer's own way reloads the exported adapter, which changes P-tuning's logits and fails on projected
    prefixes; peft's configuration is kept too, since AdaLoRA writes the ranks it has chosen into it. A file that the
    newest checkpoint speaks of stays until the next checkpoint.
    """

    def __init__(self, folder: Path, higher_is_better: bool, patience: int) -> None:
        self.folder = folder
        self.sign = 1 if higher_is_better else -1
        self.patience = patience
        self.best: float | None = None
        self.best_step: int | None = None
        self.stopped_early = False
        self._since = 0
        self._settings: dict[str, dict[str, Any]] = {}
        self._saved_step: int | None = None

    @property
    def exhausted(self) -> bool:
        """Whether training ends for want of a gain."""
        return self._since >= self.patience

    def on_evaluate(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """Compare with the best so far."""
        value, model = event["metrics"][SCORE], event["model"]
        if not math.isfinite(value) or getattr(getattr(model, "base_model", None), "unsettled", False):
            return  # a state of a method that still takes weights away is none to go back to
        if self.best is None or self.sign * (value - self.best) > LEAST_GAIN:
            replaced = self.best_step
            self.best, self.best_step, self._since = value, state.global_step, 0
            shares = sharding.asked()
            tensors = shares.gathered(dict(_trained(shares.reshard(model))))
            if ranks.is_first():
                with saving(self.folder):
                    save_file(tensors, self._file)
            self._settings = {name: copy.deepcopy(vars(item)) for name, item in _configs(model).items()}
            self._forget(replaced)
            return
        if 2 * state.global_step > state.max_steps:  # few rows need many steps before anything is to be seen
            self._since += 1
        if self.exhausted:
            self.stopped_early = state.global_step < state.max_steps
            control.should_training_stop = True

    @property
    def _file(self) -> Path:
        return self.folder / f"best-{self.best_step}.safetensors"

    def _forget(self, step: int | None) -> None:
        if ranks.is_first() and step not in (None, self.best_step, self._saved_step):
            (self.folder / f"best-{step}.safetensors").unlink(missing_ok=True)

    def on_save(self, args: Any, state: Any, control: Any, **event: Any) -> None:
        """The newest checkpoint speaks of the best state of now."""
        before, self._saved_step = self._saved_step, self.best_step
        self._forget(before)

    def training_state(self, model: Any) -> dict[str, Any]:
        """What a later sitting needs; of peft's configuration what training has written into it."""
        return {"best": self.best, "step": self.best_step, "since": self._since, "settings": self._changed(model)}

    def restore_training_state(self, model: Any, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.best, self.best_step, self._since = state["best"], state["step"], state["since"]
        self._saved_step = self.best_step
        self._settings = {
            name: {**copy.deepcopy(vars(item)), **state["settings"].get(name, {})}
            for name, item in _configs(model).items()
        }

    def _changed(self, model: Any) -> dict[str, dict[str, Any]]:
        """Settings of the best state that are plain values; the others are as the method makes them."""
        return {
            name: {key: value for key, value in settings.items() if _is_plain(value)}
            for name, settings in self._settings.items()
        }

    def restore(self, model: Any) -> None:
        """Put the best state back."""
        if self.best is None:
            return
        ranks.wait()
        saved, shares = load_file(self._file), sharding.asked()
        with torch.no_grad():
            for name, item in _trained(shares.reshard(model)):
                shares.put(item, saved[name])
        for name, config in _configs(model).items():
            vars(config).update(self._settings[name])


def _is_plain(value: Any) -> bool:
    """Whether a setting can be stored as it is (sets and the ecosystem's own classes cannot)."""
    if type(value) is dict:
        return all(_is_plain(item) for pair in value.items() for item in pair)
    if type(value) is list:
        return all(map(_is_plain, value))
    return value is None or type(value) in (bool, int, float, str)


def _trained(model: Any) -> list[tuple[str, Any]]:
    return [(name, item) for name, item in model.named_parameters() if item.requires_grad]


def _configs(model: Any) -> dict[str, Any]:
    return dict(getattr(model, "peft_config", {}))


class WatchLoss(TrainerCallback):  # type: ignore[misc]
    """Ends a run whose loss is no number any more, or stays far above where it began."""

    def __init__(self) -> None:
        self.trouble = ""
        self.losses: list[tuple[int, float]] = []

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Look at the mean loss since the last time."""
        loss = (logs or {}).get("loss")
        if loss is None:
            return
        if not math.isfinite(loss):
            self.trouble = f"the loss is no number after step {state.global_step} ({self._before()})"
        else:
            self.losses.append((state.global_step, loss))
            bound = EXPLODED * max(self.losses[0][1], LEAST_LOSS)
            recent = [value for _, value in self.losses[-OF_LATE:]]
            if len(recent) == OF_LATE and statistics.median(recent) > bound:
                first = self.losses[0][1]
                self.trouble = f"the loss has risen from {first:.3g} to {loss:.3g} by step {state.global_step}"
        control.should_training_stop = control.should_training_stop or bool(self.trouble)

    def _before(self) -> str:
        return (
            f"it was {self.losses[-1][1]:.3g} after step {self.losses[-1][0]}" if self.losses else "nor was it before"
        )

    def training_state(self, model: Any) -> dict[str, Any]:
        """The losses so far."""
        return {"losses": [list(item) for item in self.losses]}

    def restore_training_state(self, model: Any, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.losses = [(int(step), float(loss)) for step, loss in state["losses"]]


class WatchMemory(TrainerCallback):  # type: ignore[misc]
    """Looks at the peak of each training step alone; evaluation, which is priced by nobody, is left out."""

    def __init__(self, peak: PeakMemory) -> None:
        self.peak = peak

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A step begins with its first micro-batch."""
        self.peak.begin_step()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The optimizer has stepped."""
        self.peak.end_step()

    def training_state(self, model: Any) -> dict[str, Any]:
        """The peaks so far."""
        return {"allocated": self.peak.allocated, "reserved": self.peak.reserved}

    def restore_training_state(self, model: Any, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.peak.allocated = max(self.peak.allocated, state["allocated"])
        self.peak.reserved = max(self.peak.reserved, state["reserved"])


class Tell(TrainerCallback):  # type: ignore[misc]
    """Tells an observer how far training and prediction are."""

    def __init__(self, observer: Observer, peak: PeakMemory | None = None) -> None:
        self.observer = observer
        self.peak = peak
        self._loss = ""
        self._score = ""
        self._predicted = 0
        self._training = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """From here on the bar is that of training."""
        self._training = True

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training is over."""
        self._training = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """One optimizer step more."""
        memory = f"memory {size(self.peak.in_use)}" if self.peak else ""
        parts = (self._loss, self._score, memory)
        self.observer.progress(state.global_step, state.max_steps, ", ".join(filter(None, parts)))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """The loss of late."""
        if loss := (logs or {}).get("loss"):
            self._loss = f"loss {loss:.3f}"

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        """The score on the validation rows."""
        self._score = f"validation {metrics[SCORE]:.3f}"

    def on_prediction_step(self, args: Any, state: Any, control: Any, eval_dataloader: Any = None, **_: Any) -> None:
        """One batch more of a prediction outside of training."""
        if not self._training:
            self._predicted += 1
            self.observer.progress(self._predicted, len(eval_dataloader))

    def on_predict(self, args: Any, state: Any, control: Any, metrics: Any, **_: Any) -> None:
        """A prediction is done."""
        self._predicted = 0
