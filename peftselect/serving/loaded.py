"""A trained adapter on its base model, ready to be asked as it was asked while it was trained."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from peftselect import loading, modeling
from peftselect.base_models import resolve_base_model
from peftselect.method import Recipe
from peftselect.plugin_manager import host
from peftselect.problem import DataProfile, Hardware, Priorities
from peftselect.processors import fit_tokenizer, load_processors
from peftselect.question import make_problem, under_head
from peftselect.serving.inputs import with_blanks
from peftselect.task import TaskContext
from peftselect.training import trainer
from peftselect.training.evaluation import Evaluated, Evaluation
from peftselect.training.progress import quiet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from peftselect.problem import Problem
    from peftselect.serving.saved import Saved
    from peftselect.shape import AudioInput
    from peftselect.task import Row, Task


#: made-up sequences by which two forms of a model are compared, and their tokens
PROBES, PROBE_TOKENS = 8, 24


@dataclass
class Loaded:
    """A model with its adapter, and how its task encodes and decodes."""

    saved: Saved
    problem: Problem
    recipe: Recipe
    model: Any
    context: TaskContext

    @property
    def task(self) -> Task:
        """What it was trained for."""
        return self.problem.task

    def predict(self, rows: Sequence[Row]) -> list[Any]:
        """One prediction a row: a label, a number, tags, a span or a text. Rows need no answers."""
        return self._evaluated(with_blanks(rows, self.task, self.context.labels), score=False).predictions

    def evaluate(self, rows: Sequence[Row]) -> Evaluated:
        """Predictions and the task's metrics on rows with answers."""
        return self._evaluated(rows, score=True)

    def logits(self) -> Any:
        """The outputs on a few made-up sequences: what the weights say, whatever the task (PROBES, ..., classes)."""
        if (audio := self.problem.shape.audio) is not None:
            return self._heard(audio)
        embedded = self.model.get_input_embeddings()
        generator = torch.Generator().manual_seed(0)
        shape = (PROBES, 2, PROBE_TOKENS) if self.context.head == "multiple_choice" else (PROBES, PROBE_TOKENS)
        ids = torch.randint(len(self.context.tokenizer), shape, generator=generator).to(embedded.weight.device)
        batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        if self.context.head == "seq2seq_lm":
            batch["decoder_input_ids"] = ids
        with torch.no_grad():
            outputs = self.model.eval()(**batch)
        name = next(name for name in ("logits", "start_logits", "last_hidden_state") if name in outputs)
        return outputs[name].float()

    def _heard(self, audio: AudioInput) -> Any:
        """The outputs on a few made-up sounds of a second."""
        first = next(self.model.parameters())
        size = (PROBES, audio.features, audio.frames(1)) if audio.features > 1 else (PROBES, audio.frames(1))
        noise = torch.randn(size, generator=torch.Generator().manual_seed(0)).to(first.device, self.model.dtype)
        batch = {"input_features" if audio.features > 1 else "input_values": noise}
        if self.context.head == "speech_seq2seq":
            batch["decoder_input_ids"] = torch.ones(PROBES, PROBE_TOKENS, dtype=torch.long, device=first.device)
        with torch.no_grad():
            return self.model.eval()(**batch).logits.float()

    def _evaluated(self, rows: Sequence[Row], *, score: bool) -> Evaluated:
        with tempfile.TemporaryDirectory() as scratch, quiet():
            return Evaluation(self.task, rows, self.context)(self._runner(Path(scratch)), score=score)

    def _runner(self, scratch: Path) -> Any:
        arguments = trainer.training_arguments(
            self.recipe,
            scratch,
            self.context.head,
            steps=1,
            epochs=1.0,
            mixed=modeling.autocast(self.model, self.recipe),
            seed=0,
            cpu=next(self.model.parameters()).device.type == "cpu",
            generates=self.task.generates(self.context.head),
        )
        collator = self.task.collator(self.context, self.model)
        return trainer.make_trainer(
            self.model,
            arguments,
            collator,
            self.context.head,
            tokenizer=self.context.tokenizer or self.context.feature_extractor,
            objective=self.task.objective(self.context),
        )


def load_base(saved: Saved, *, device: str | None = None) -> Loaded:
    """The base model of ``saved`` alone; its head, where it has one, is new (the same each time).

    Loaded anew, since an adapter that is switched off leaves behind what was trained in place (biases).
    """
    transformers.set_seed(0)
    return load(replace(saved, whole_model=False, prepended_positions=0), device=device, bare=True)


def load(saved: Saved, *, device: str | None = None, bare: bool = False, name: str = "default") -> Loaded:
    """Put the adapter of ``saved`` on its base model (``device``: torch's name; by default a card where there is one).

    ``bare`` leaves the adapter out, ``name`` is what peft calls it. InputError where the base model or the adapter
    cannot be loaded.
    """
    where = device or ("cuda" if torch.cuda.is_available() else "cpu")
    problem, recipe = _problem(saved, where), _recipe(saved, where)
    with quiet():
        tokenizer, extractor = load_processors(problem.model, problem.shape)
        model = modeling.load_model(problem.model, problem.shape, recipe, saved.labels, where)
        if problem.task.problem_type is not None:
            model.config.problem_type = problem.task.problem_type
        if tokenizer is not None:
            fit_tokenizer(problem.model, model, tokenizer, problem.shape)
        if not saved.whole_model and not bare:
            model = loading.load(saved.folder, model, adapter_name=name)
            if (method := host().methods().get(saved.method)) is not None:
                modeling.decode_as_it_can(model, method)
    if problem.shape.architecture == "decoder" and saved.prepended_positions:
        tokenizer.padding_side = "left"
    context = TaskContext(
        tokenizer=tokenizer,
        architecture=problem.shape.architecture,
        head=problem.shape.head.kind,
        max_length=problem.max_length,
        max_target_length=problem.max_target_length,
        labels=saved.labels,
        prepended_positions=saved.prepended_positions,
        template=saved.template,
        label_words=saved.label_words,
        demonstrations=saved.demonstrations,
        feature_extractor=extractor,
        audio=problem.shape.audio,
    )
    return Loaded(saved, problem, recipe, model.eval(), context)


def _problem(saved: Saved, device: str) -> Problem:
    base = resolve_base_model(str(saved.folder) if saved.whole_model else saved.model)
    data = DataProfile(num_labels=len(saved.labels) or None)
    lengths = (saved.max_length or None, saved.max_target_length or None)
    name = "cpu" if device == "cpu" else ""
    task = host().task(saved.task)
    asked = make_problem(task, base, data, Hardware(name=name), Priorities(), saved.batch_size, lengths, None, None)
    return under_head(asked, saved.head) if saved.head else asked


def _recipe(saved: Saved, device: str) -> Recipe:
    return Recipe(
        precision="fp32" if device == "cpu" else saved.precision,
        quantization=saved.quantization,
        micro_batch_size=max(saved.batch_size // 2, 1),
        gradient_accumulation_steps=1,
        gradient_checkpointing=False,
        learning_rate=0.0,
        num_train_epochs=1.0,
        max_length=saved.max_length,
        max_target_length=saved.max_target_length,
    )
