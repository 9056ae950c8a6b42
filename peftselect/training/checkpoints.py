"""Checkpoints from which training goes on exactly: every trained tensor, and the states of all that has one."""

from __future__ import annotations

import shutil
import signal
import time
import weakref
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from transformers import TrainerCallback, TrainerState
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME, TRAINER_STATE_NAME

from peftselect.training import ranks, sharding
from peftselect.training.interrupts import Interrupted
from peftselect.training.unfinished import RESULT, Checkpoint, mark_whole, saving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from peftselect.training.interrupts import Stopper
    from peftselect.training.progress import Observer

TENSORS = "tensors.safetensors"
STATES = "states.pt"


class Resumable:
    """A Trainer whose checkpoints hold tensors by name, not the exported adapter, and which end with a marker.

    The exported adapter lacks the networks of P-tuning and of projected prefixes. Saved are the trained parameters and
    whatever else has changed in place since training began (masks, counters). Callbacks with ``training_state(model)``
    and ``restore_training_state(model, state)`` (plain values and tensors) go on where they were, and so do
    the optimizer, the schedule and the random generators, by the Trainer's own ways.
    """

    model: Any
    args: Any
    state: Any
    callback_handler: Any
    optimizer: Any
    lr_scheduler: Any
    #: whether the processes have parts of the optimizer each, perhaps of the model too
    states_are_shared = False
    _versions: dict[str, tuple[Any, int]]

    def watch_changes(self) -> None:
        """Remember how the tensors are before training, without holding those that are replaced."""
        self._versions = {name: (weakref.ref(item), item._version) for name, item in _tensors(self.model)}

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """The trained tensors, and those that have changed without being trained."""
        folder = Path(str(output_dir))
        shares = sharding.asked()
        model = shares.reshard(self.model)
        found = shares.gathered({name: item for name, item in _tensors(model) if self._has_changed(name, item)})
        if ranks.is_first():
            shutil.rmtree(folder, ignore_errors=True)  # half of one, of a sitting that was killed
            folder.mkdir()
            save_file(found, folder / TENSORS)
        ranks.wait()

    def _has_changed(self, name: str, item: Any) -> bool:
        if item.requires_grad or sharding.asked().is_shard(item):
            return bool(item.requires_grad)
        seen, version = self._versions.get(name, (lambda: None, 0))
        return seen() is not item or version != item._version

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        """The Trainer's own files; states that are shared are gathered, and the model is not written again."""
        if not self.states_are_shared:
            super()._save_optimizer_and_scheduler(output_dir)  # type: ignore[misc]
            return
        state = sharding.asked().optimizer_state(self.model, self.optimizer.optimizer)
        if ranks.is_first():
            torch.save(state, Path(output_dir, OPTIMIZER_NAME))
            torch.save(self.lr_scheduler.state_dict(), Path(output_dir, SCHEDULER_NAME))

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.states_are_shared or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        state, schedule = (
            torch.load(Path(checkpoint, name), map_location="cpu", weights_only=True)
            for name in (OPTIMIZER_NAME, SCHEDULER_NAME)
        )
        sharding.asked().restore_optimizer(self.model, self.optimizer.optimizer, state)
        self.lr_scheduler.load_state_dict(schedule)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        step = self.state.global_step
        folder = Path(self.args.output_dir, f"checkpoint-{step}")
        finished = step >= self.state.max_steps or any(
            getattr(item, "exhausted", False) for item in self.callback_handler.callbacks
        )
        with saving(folder.parent):
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
            ranks.wait()  # each process has states of its own
            if not ranks.is_first():
                return
            states = {name: item.training_state(self.model) for name, item in self._stateful()}
            torch.save(states, folder / STATES)
            mark_whole(Checkpoint(folder, step, self.state.max_steps, finished))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        folder = Path(resume_from_checkpoint)
        saved, shares = load_file(folder / TENSORS), sharding.asked()
        with torch.no_grad():
            for name, item in _tensors(shares.reshard(self.model)):
                if name in saved:
                    shares.put(item, saved[name])
        states = torch.load(folder / STATES, map_location="cpu", weights_only=True)
        for name, item in self._stateful():
            if name in states:  # a probe, from whose checkpoint its winner goes on, has no meter
                item.restore_training_state(self.model, states[name])

    def _stateful(self) -> Iterator[tuple[str, Any]]:
        for number, item in enumerate([self, *self.callback_handler.callbacks]):
            if hasattr(item, "training_state"):
                yield f"{number} {type(item).__name__}", item


def _tensors(model: Any) -> Iterator[tuple[str, Any]]:
    yield from model.named_parameters()
    yield from model.named_buffers()


class SaveInTime(TrainerCallback):  # type: ignore[misc]
    """Asks for a checkpoint every so many seconds, and for the last one when the run is to stop."""

    def __init__(self, seconds: float, stopper: Stopper, observer: Observer) -> None:
        self.seconds = seconds
        self.stopper = stopper
        self.observer = observer
        self._saved_at = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Time counts from here."""
        self._saved_at = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The only place where training can be left."""
        told = self.stopper.asked is not None
        told, due = ranks.any_of(told, time.monotonic() - self._saved_at >= self.seconds)
        if told:
            self.observer.stage(f"told to stop: saving step {state.global_step:,} (once more: stop at once)")
            control.should_save = control.should_training_stop = True
        elif due:
            control.should_save = True

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """A checkpoint is whole."""
        self._saved_at = time.monotonic()


def fit(runner: Any, earlier: Checkpoint | None, stopper: Stopper, *, until: int | None = None) -> None:
    """Train to the end, from the ``earlier`` checkpoint on where there is one; Interrupted if told to stop.

    ``until`` is a step at which a callback will leave training: an earlier checkpoint may have come to it already.
    """
    runner.watch_changes()
    if earlier is not None and (earlier.finished or (until is not None and earlier.step >= until)):
        sharding.asked().leave(runner)  # nothing more is trained: each process has the model whole
        runner._load_from_checkpoint(str(earlier.folder))
        runner.state = TrainerState.load_from_json(str(earlier.folder / TRAINER_STATE_NAME))
        return
    with stopper.between_steps():
        runner.train(resume_from_checkpoint=str(earlier.folder) if earlier else None)
    if ranks.any_of(stopper.asked is not None)[0]:
        raise Interrupted(stopper.asked or signal.SIGTERM)


def result_folder(work: Path) -> Path:
    """An empty folder for what the run leaves behind."""
    folder = work / RESULT
    if not ranks.is_first():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    return folder
