"""transformers' Trainer, set up for one run: its arguments, its callbacks, and an evaluation that the task scores."""

from __future__ import annotations

import math
import os
import time
from typing import TYPE_CHECKING, Any

import torch
import transformers

from peftselect.method import SPEECH_HEADS
from peftselect.training import ranks, sharding
from peftselect.training.callbacks import SCORE
from peftselect.training.checkpoints import Resumable
from peftselect.training.evaluation import keep_logits
from peftselect.training.sampling import GroupedSampler
from peftselect.zeroth_order import ForwardOptimizer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from peftselect.method import Recipe
    from peftselect.task import Objective
    from peftselect.training.evaluation import Evaluation

#: our names of optimizers in transformers' words, where they differ
OPTIMIZERS = {"adamw": "adamw_torch_fused", "adamw_foreach": "adamw_torch", "adamw_8bit": "adamw_bnb_8bit"}
#: looks at the validation rows in one run: one an epoch, within these bounds
FEWEST_LOOKS, MOST_LOOKS = 3, 10
#: how often the loss is noted
MOST_LOGS = 100


class TaskTrainer(Resumable, transformers.Seq2SeqTrainer):  # type: ignore[misc]
    """A Trainer whose evaluation predicts, decodes and scores as the task does.

    ``evaluation_seconds`` is the time spent in that, ``training_seconds`` the time in all the rest of training, over
    all sittings.
    """

    control: Any

    def __init__(
        self,
        *arguments: Any,
        monitor: Evaluation | None = None,
        objective: Objective | None = None,
        lengths: Sequence[int] | None = None,
        **keywords: Any,
    ) -> None:
        super().__init__(*arguments, **keywords)
        sharding.asked().settle(self, training=self.train_dataset is not None)
        self.objective = objective
        if objective is not None and objective.has_loss:
            self.loss_is_scaled_for_ga = False
        self.remove_callback(transformers.PrinterCallback)
        if self.forward_optimizer is not None:
            self.accelerator.scaler = None  # there are no gradients to scale
        self.monitor = monitor
        self.lengths = lengths
        self.history: list[dict[str, float]] = []
        self.evaluation_seconds = 0.0
        self._earlier_seconds = 0.0
        self._started = time.perf_counter()

    def train(self, *arguments: Any, **keywords: Any) -> Any:
        """The Trainer's own, timed."""
        self._started = time.perf_counter()
        return super().train(*arguments, **keywords)

    def _prepare_for_training(self, max_steps: int, train_dataloader: Any, resume_from_checkpoint: str | None) -> Any:
        """The Trainer's own; what is shared goes on from the checkpoint by the ways of :class:`Resumable`."""
        theirs, ours = resume_from_checkpoint, None
        if self.states_are_shared:
            theirs, ours = None, resume_from_checkpoint
        with sharding.asked().cutting(self):
            prepared = super()._prepare_for_training(max_steps, train_dataloader, theirs)
        if ours is not None:
            self._load_from_checkpoint(ours)
            self._load_optimizer_and_scheduler(ours)
            self._load_scaler(ours)
        return prepared

    @property
    def training_seconds(self) -> float:
        """Seconds of training so far, without those of evaluation."""
        return self._earlier_seconds + time.perf_counter() - self._started - self.evaluation_seconds

    @property
    def forward_optimizer(self) -> ForwardOptimizer | None:
        """The optimizer, where it wants losses in place of gradients."""
        plain = getattr(self.optimizer, "optimizer", self.optimizer)  # accelerate wraps it
        return plain if isinstance(plain, ForwardOptimizer) else None

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> Any:
        """The Trainer's own; without gradients the optimizer is handed the loss of the micro-batch, nothing dropped."""
        optimizer = self.forward_optimizer
        if optimizer is None:
            return super().training_step(model, inputs, num_items_in_batch)
        model.eval()
        inputs = self._prepare_inputs(inputs)

        def loss() -> Any:
            # a mean of its own for each micro-batch: which models count over all of them, the Trainer only guesses
            with self.compute_loss_context_manager():
                return ranks.mean(self.compute_loss(model, dict(inputs)) / self.current_gradient_accumulation_steps)

        return optimizer.measure(loss).detach()

    def _clip_grad_norm(self, model: Any) -> Any:
        return None if self.forward_optimizer else super()._clip_grad_norm(model)

    def _get_grad_norm(self, model: Any, grad_norm: Any = None) -> Any:
        return None if self.forward_optimizer else super()._get_grad_norm(model, grad_norm=grad_norm)

    def training_state(self, model: Any) -> dict[str, Any]:
        """The scores on the validation rows and the times so far."""
        times = {"training": self.training_seconds, "evaluation": self.evaluation_seconds}
        return {"history": self.history, **times}

    def restore_training_state(self, model: Any, state: dict[str, Any]) -> None:
        """Go on from there."""
        self.history, self.evaluation_seconds = state["history"], state["evaluation"]
        self._earlier_seconds = state["training"] + state["evaluation"]
        self._started = time.perf_counter()

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Rows of like length together, where their ``lengths`` are given: those of one optimizer step, so that it
        sees the same rows however it is split into micro-batches and processes."""
        if self.lengths is None:
            return super()._get_train_sampler(train_dataset)
        step = self.args.train_batch_size * self.args.gradient_accumulation_steps * self.args.world_size
        return GroupedSampler(self.lengths, step, self.args.seed)

    def compute_loss(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
        """The objective's loss, where the task has one (the Trainer divides it by the accumulation)."""
        if self.objective is None or not self.objective.has_loss:
            return super().compute_loss(model, inputs, *arguments, **keywords)
        return self.objective.loss(model, inputs)

    def prediction_step(self, model: Any, inputs: Any, *arguments: Any, **keywords: Any) -> Any:
        """The objective's prediction, where the task has one."""
        if self.objective is None or not self.objective.has_prediction:
            return super().prediction_step(model, inputs, *arguments, **keywords)
        with torch.no_grad(), self.compute_loss_context_manager():
            return None, self.objective.predict(model, self._prepare_inputs(inputs)).detach().float(), None

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        """Score the monitored rows; the Trainer calls this when an evaluation is due."""
        assert self.monitor is not None  # an evaluation is due only where rows are monitored
        started = time.perf_counter()
        scores = self.monitor(self).scores
        metrics = {f"eval_{name}": value for name, value in scores.items()}
        metrics[SCORE] = scores[self.monitor.task.metric]
        self.history.append({"step": self.state.global_step, **scores})
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        self.evaluation_seconds += time.perf_counter() - started
        if self.args.report_to:
            self.log(metrics)
        return metrics


def optimizer_steps(examples: int, recipe: Recipe, max_steps: int | None) -> tuple[int, float]:
    """(optimizer steps, epochs) of a run, counted as the Trainer counts them; at most ``max_steps``."""
    batches = math.ceil(examples / recipe.micro_batch_size / ranks.count())
    an_epoch = max(math.ceil(batches / recipe.gradient_accumulation_steps), 1)
    steps = max(math.ceil(recipe.num_train_epochs * an_epoch), 1)
    steps = steps if max_steps is None else min(steps, max_steps)
    return steps, steps / an_epoch


def training_arguments(
    recipe: Recipe,
    folder: Path,
    head: str,
    *,
    steps: int,
    epochs: float,
    mixed: str | None,
    seed: int,
    cpu: bool,
    generates: bool,
    report_to: Sequence[str] = (),
) -> Any:
    """The Trainer's arguments for a recipe. ``mixed`` is the automatic mixed precision, ``folder`` scratch space."""
    if cpu:
        # accelerate imports DeepSpeed wherever it is installed, which would look for cards and say that none is there
        os.environ["DS_ACCELERATOR"] = "cpu"
    looks = min(max(math.ceil(epochs), FEWEST_LOOKS), MOST_LOOKS)
    arguments = transformers.Seq2SeqTrainingArguments(
        output_dir=str(folder),
        max_steps=steps,
        per_device_train_batch_size=recipe.micro_batch_size,
        per_device_eval_batch_size=2 * recipe.micro_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler,
        warmup_steps=math.ceil(recipe.warmup_ratio * steps),
        weight_decay=recipe.weight_decay,
        optim=OPTIMIZERS.get(recipe.optimizer, recipe.optimizer),
        bf16=mixed == "bf16",
        fp16=mixed == "fp16",
        eval_strategy="steps",
        eval_steps=max(math.ceil(steps / looks), 1),
        save_strategy="no",
        logging_steps=max(steps // MOST_LOGS, 1),
        logging_nan_inf_filter=False,  # a loss that is no number must be seen
        include_num_input_tokens_seen="no" if head in SPEECH_HEADS else "non_padding",
        remove_unused_columns=head not in SPEECH_HEADS,  # the collator reads the files that rows name
        predict_with_generate=generates,
        label_names=["start_positions", "end_positions"] if head == "question_answering" else ["labels"],
        seed=seed,
        data_seed=seed,
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,
        disable_tqdm=True,
        log_level_replica="error",
        report_to=list(report_to),
        run_name=str(folder.name),
    )
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1  # several visible cards would be used through DataParallel, which peft does not serve
    return arguments


def make_trainer(
    model: Any,
    arguments: Any,
    collator: Any,
    head: str,
    *,
    tokenizer: Any,
    train: Any = None,
    lengths: Sequence[int] | None = None,
    monitor: Evaluation | None = None,
    objective: Objective | None = None,
    optimizer: Any = None,
    callbacks: list[Any] | None = None,
) -> TaskTrainer:
    """A Trainer for training (``train`` and ``monitor`` given) or for prediction alone.

    ``lengths`` of the training rows, where rows of like length are to share a batch.
    """
    if objective is not None:
        # the collator picks what it needs: columns that the model does not know by name are inputs of the objective
        arguments.remove_unused_columns = False
    untrainable = getattr(model, "is_quantized", False) and train is None
    if untrainable:
        # the Trainer refuses a quantised model without an adapter, even where it is only to predict
        model._hf_peft_config_loaded = True
    try:
        return TaskTrainer(
            model=model,
            args=arguments,
            data_collator=collator,
            train_dataset=train,
            eval_dataset=monitor.encoded if monitor else _nothing(),
            processing_class=tokenizer,
            optimizers=(optimizer, None),
            callbacks=callbacks,
            preprocess_logits_for_metrics=keep_logits(head),
            monitor=monitor,
            objective=objective,
            lengths=lengths,
        )
    finally:
        if untrainable:
            model._hf_peft_config_loaded = False


def _nothing() -> Any:
    """An empty data set: the Trainer wants one whenever its arguments speak of evaluation."""
    from datasets import Dataset

    return Dataset.from_dict({})
