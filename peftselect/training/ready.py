"""What stands ready before a step is trained: the encoded rows, the model with its method, the Trainer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from peftselect import modeling
from peftselect.errors import PeftSelectError
from peftselect.method import ApplyContext
from peftselect.problem import parse_duration
from peftselect.processors import load_processors
from peftselect.task import TaskContext
from peftselect.training import callbacks, checkpoints, measurement, packing, ranks, sharding, stages, trainer
from peftselect.training.evaluation import Evaluation
from peftselect.training.prompting import example_batch, example_rows, prompting
from peftselect.training.session import Session, make_runner, pad_alike
from peftselect.training.splits import draw

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from peftselect.training import machine
    from peftselect.training.interrupts import Stopper
    from peftselect.training.plan import RunPlan
    from peftselect.training.progress import Observer

#: evaluations without a gain in the second half of the steps after which training ends
PATIENCE = 3
#: validation rows that are looked at while training, where text is generated and where it is not
MONITORED = {True: 200, False: 2000}


@dataclass(frozen=True)
class Ready:
    """A model with its method, and the Trainer for it."""

    model: Any
    runner: Any
    best: callbacks.KeepBest
    watch: callbacks.WatchLoss

    @property
    def trouble(self) -> str:
        """Why training has diverged; nothing where it has not."""
        if self.watch.trouble:
            return self.watch.trouble
        local = sharding.asked().local
        trained = (local(item) for item in self.model.parameters() if item.requires_grad)
        (lost,) = ranks.any_of(any(not torch.isfinite(item).all() for item in trained))
        return f"a weight is no number after step {self.runner.state.global_step}" if lost else ""


def prepare(plan: RunPlan, here: machine.Machine, work: Path, observer: Observer) -> Session:
    """Encode the rows and count the steps."""
    observer.stage("reading the data into tokens")
    problem, candidate, task = plan.problem, here.candidate, plan.problem.task
    peak = measurement.PeakMemory(here.cuda)
    tokenizer, extractor = load_processors(problem.model, problem.shape)
    context = TaskContext(
        tokenizer=tokenizer,
        feature_extractor=extractor,
        audio=problem.shape.audio,
        architecture=problem.shape.architecture,
        head=problem.shape.head.kind,
        max_length=here.max_length,
        max_target_length=candidate.recipe.max_target_length,
        labels=plan.splits.labels,
        prepended_positions=candidate.method.prepended_positions(candidate.values),
        template=plan.template,
        **prompting(plan, candidate),
    )
    rows = draw(plan.splits.validation, MONITORED[task.generates(context.head)], plan.seed)
    session = Session(plan, here, work, observer, peak, context, 0, 0.0, None, Evaluation(task, rows, context))
    encoded = task.encode_train(stages.training_rows(session, plan.splits.train), context)
    session.examples = example_rows(encoded, candidate.method.examples(candidate.values), plan.seed)
    if candidate.recipe.packing:
        encoded = packing.pack(encoded, here.max_length + candidate.recipe.max_target_length, context.head)
    session.train = encoded
    session.steps, session.epochs = trainer.optimizer_steps(len(encoded), candidate.recipe, plan.max_steps)
    return session


def make_ready(
    session: Session, stopper: Stopper, on_base: Callable[[Any, Any], None], hung_on: tuple[Any, ...] = ()
) -> Ready:
    """Load the model, apply the method, and make the Trainer; ``on_base`` sees base and tokenizer in between."""
    plan, here = session.plan, session.here
    candidate, observer, task = here.candidate, session.observer, plan.problem.task
    observer.stage("loading the model")
    model, tokenizer = modeling.build(
        plan.problem,
        candidate,
        plan.splits.labels,
        session.steps,
        plan.seed,
        str(here.device),
        on_loaded=on_base,
        examples=lambda base: example_batch(session.examples, task.collator(session.context, base)),
    )
    pad_alike(session.context, tokenizer)
    _count(session, model)
    if candidate.recipe.packing:
        packing.check(model, f"{plan.problem.model.name} with {candidate.method.title}")
    best = callbacks.KeepBest(session.work, plan.problem.task.higher_is_better, PATIENCE)
    watch = callbacks.WatchLoss()
    applied = ApplyContext(
        plan.problem.shape, plan.problem.task.name, session.steps, plan.seed, candidate.recipe.quantization is not None
    )
    own = candidate.method.callbacks(candidate.values, applied)
    in_time = checkpoints.SaveInTime(parse_duration(plan.order.checkpoint_every), stopper, observer)
    looking_on = [
        best,
        watch,
        callbacks.WatchMemory(session.peak),
        callbacks.Tell(observer, session.peak),
        in_time,
        *hung_on,
    ]
    for module in model.modules():
        # accelerate marks what it has prepared for scoring, and an adapter's model shows its base's mark: training
        # would not be shared among processes
        vars(module).pop("_is_accelerate_prepared", None)
    mixed = modeling.autocast(model, candidate.recipe, forward_only=candidate.method.forward_only)
    runner = make_runner(session, model, mixed, [*own, *looking_on], training=True)
    return Ready(model, runner, best, watch)


def _count(session: Session, model: Any) -> None:
    """Parameters as they really are; nothing to train is a mistake of the method's."""
    trainable, total = modeling.count_parameters(model)
    if not trainable:
        raise PeftSelectError(f"{session.here.candidate.method.title} left nothing to train", "choose another method")
    session.measured |= {"trainable_parameters": trainable, "total_parameters": total}
