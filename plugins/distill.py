"""Knowledge distillation: a larger model's distribution, or its answers, are what is learnt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Objective, Reference, Stage, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import Method, ModelShape, StageContext

_HEADS = {"causal_lm", "seq2seq_lm", "sequence_classification", "token_classification", "multiple_choice"}
_IGNORED = -100


class SoftTargets(Objective):
    """The model's own loss, and the divergence from the teacher's softened distribution."""

    has_loss = True
    has_prediction = False

    def __init__(self, teacher: Any, temperature: float, weight: float) -> None:
        self.teacher = teacher
        self.temperature = temperature
        self.weight = weight

    def loss(self, model: Any, inputs: dict[str, Any]) -> Any:
        """(1 - w)·loss + w·T²·KL(teacher ‖ model), the mean over what has a label (Hinton et al. 2015, section 2)."""
        import torch
        from torch.nn import functional

        outputs = model(**inputs)
        with torch.no_grad():
            taught = self.teacher(**inputs).logits
        own, labels = outputs.logits, inputs["labels"]
        if own.shape != taught.shape:
            raise ValueError(f"the teacher's logits have the shape {tuple(taught.shape)}, not {tuple(own.shape)}")
        if own.dim() == 3 and own.shape[:2] == labels.shape:
            # a decoder's logits stand one place before the token they are of
            shifted = self.teacher.config.is_encoder_decoder is False and _generates(self.teacher)
            if shifted:
                own, taught, labels = own[:, :-1], taught[:, :-1], labels[:, 1:]
            own, taught = own[labels != _IGNORED], taught[labels != _IGNORED]
        own, taught = own.flatten(0, -2).float(), taught.flatten(0, -2).float()
        log_own = functional.log_softmax(own / self.temperature, -1)
        log_taught = functional.log_softmax(taught / self.temperature, -1)
        apart = functional.kl_div(log_own, log_taught, reduction="batchmean", log_target=True)
        return (1 - self.weight) * outputs.loss + self.weight * self.temperature**2 * apart


def _generates(model: Any) -> bool:
    return bool(model.can_generate())


class Distill(Stage):
    """A teacher beside the run: white box (its logits) or black box (its answers alone)."""

    name = "distill"
    title = "Knowledge distillation"
    summary = "Learns a teacher's distribution (white box), or the answers it gives to the training rows (black box)."
    aliases = (
        "distillation", "knowledge_distillation", "kd", "white_box_distillation", "black_box_distillation",
        "white_box_knowledge_distillation", "black_box_knowledge_distillation",
    )  # fmt: skip
    family = "distillation"
    references = (
        Reference("Distilling the Knowledge in a Neural Network", "https://arxiv.org/abs/1503.02531", 2015),
        Reference("Sequence-Level Knowledge Distillation", "https://arxiv.org/abs/1606.07947", 2016),
    )
    thesis = ("2.2.2",)
    places = frozenset({"before"})
    changes_weights = False
    limits = (
        "White box: teacher and student share vocabulary and labels.",
        "The predicted memory is that of the student alone; the teacher comes on top.",
        "A trained adapter is a teacher once it is merged (`peftselect merge`).",
    )

    def hyperparameters(self) -> Sequence[Hyperparameter]:
        """The teacher, and what is learnt of it; temperature and weight as DistilBERT's authors and Hinton use them."""
        return (
            Hyperparameter("teacher", None, "str", "model to learn from: a folder, a catalogue name, a hub id"),
            Hyperparameter("box", "white", "str", "learn its distribution or its answers", choices=("white", "black")),
            Hyperparameter("temperature", 2.0, "float", "softens both distributions", 0.1, 100.0, log=True),
            Hyperparameter("weight", 0.5, "float", "weight of the teacher's part of the loss", 0.0, 1.0),
        )

    def refuse(self, shape: ModelShape, method: Method, values: Mapping[str, Any]) -> str | None:
        """A teacher is needed, and a head with a distribution."""
        if not values["teacher"]:
            return "it needs a teacher: distill:teacher=MODEL"
        if shape.head.kind not in _HEADS:
            return f"a {shape.head.kind.replace('_', ' ')} head has no distribution to learn"
        return None

    def rows(self, rows: Sequence[Any], values: Mapping[str, Any], context: StageContext) -> Sequence[Any]:
        """Black box: the teacher's answers in place of the training rows' own."""
        if values["box"] == "white":
            return rows
        answers = context.predict(context.load(values["teacher"]), rows)
        column = "target" if context.shape.head.kind in ("causal_lm", "seq2seq_lm") else "label"
        told = [{**row, column: answer} for row, answer in zip(rows, answers, strict=True)]
        changed = sum(new[column] != old.get(column) for new, old in zip(told, rows, strict=True))
        context.report.update(rows_answered=len(told), answers_that_differ=changed)
        return told

    def objective(self, values: Mapping[str, Any], context: StageContext) -> Objective | None:
        """White box: the loss with the teacher's part."""
        if values["box"] == "black":
            return None
        return SoftTargets(context.load(values["teacher"]), values["temperature"], values["weight"])


@hookimpl
def register_stages() -> tuple[type[Stage], ...]:
    """Offer distillation."""
    return (Distill,)
