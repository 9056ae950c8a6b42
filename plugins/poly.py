"""Poly: several low-rank skills a layer, which every task mixes in its own way and hands on to the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, LowRankMethod, MemoryTraits, Reference, Structure, UnsupportedError, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class Poly(LowRankMethod):
    """A mixture of low-rank updates, as one task learns it; ``skills_from`` starts from those of another task."""

    name = "poly"
    title = "Poly"
    summary = "Keeps several low-rank skills a layer and learns how a task mixes them; a next task starts from them."
    aliases = ("polytropon", "modular_skills")
    family = "reparameterized"
    structure = Structure(
        intra_connectivity="dense: linear MLPs",
        inter_connectivity="fixed: dense (routed by task)",
        parameters_adapted="reparameterization",
        parameter_sharing="across tasks",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="scaled addition",
        workspace="attention: queries/values",
    )
    references = (
        Reference("Combining Modular Skills in Multitask Learning", "https://arxiv.org/abs/2202.13914", 2022),
    )
    rate_from = "LoRA's; the authors' code has 1e-3 for the skills and 0.1 for the shares, on T0-3B under Adafactor"
    formula = "Σ (S·r·(in + out) + S) over the target layers, S = skills"
    thesis = ("1.2.2",)
    limits = ("A run has one task: to share skills, train the next task with --set skills_from=DIR of the one before.",)
    simplified = (
        "Tasks are learnt one after the other; the paper trains them together and samples the shares while it does.",
    )
    starts_as_base = True
    judged = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Skills, rank, scale, targets, rate and where skills come from."""
        kept = [item for item in super().hyperparameters(shape) if item.name not in {"lora_dropout", "use_rslora"}]
        return (
            *kept,
            Hyperparameter("skills", 4, "int", "low-rank updates in each layer", 1, 64, search=(2, 4, 8)),
            Hyperparameter("skills_from", None, "str", "folder of a poly adapter of another task on this base"),
        )

    def learning_rate(self, values: Mapping[str, Any]) -> float:
        """That of a plain update of this rank and scale."""
        return super().learning_rate({**values, "use_rslora": False})

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The skills, a logit for each in each layer, and the head."""
        skills = int(values["skills"])
        head = shape.head.parameters
        routers = skills * sum(item.count for item in self.targets(shape, values))
        return skills * (super().trainable_parameters(shape, values) - head) + routers + head

    def memory(self, shape: ModelShape, values: Mapping[str, Any], compute_bytes: int) -> MemoryTraits:
        """The inputs of both factors, as for a plain update without dropout."""
        return self.low_rank_memory(shape, {**values, "lora_dropout": 0.0}, int(values["r"]), compute_bytes)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our SkillsConfig."""
        from peftselect import SkillsConfig

        return SkillsConfig(
            skills=int(values["skills"]),
            r=int(values["r"]),
            scale=float(values["lora_alpha"]) / int(values["r"]),
            target_modules=self.peft_targets(shape, self.targets(shape, values)),
            task_type=context.task_type,
            modules_to_save=context.modules_to_save,
        )

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Put the skills in, those of the earlier task where one is given; the mixture is learnt anew."""
        wrapped = super().apply(model, values, context)
        if values["skills_from"]:
            _take_skills(wrapped, Path(values["skills_from"]))
        return wrapped


def _take_skills(model: Any, folder: Path) -> None:
    from safetensors.torch import load_file

    file = folder / "adapter_model.safetensors"
    if not file.is_file():
        raise UnsupportedError(f"skills_from={folder}: there is no adapter", "give the --output of a run of poly")
    skills = ("psel_skills_down", "psel_skills_up")
    found = {name: item for name, item in load_file(file).items() if any(part in name for part in skills)}
    own = {name.replace(".default", ""): item for name, item in model.named_parameters() if "psel_skills_" in name}
    wanted = {name for name in own if "router" not in name}
    if set(found) != wanted or any(own[name].shape != item.shape for name, item in found.items()):
        raise UnsupportedError(
            f"skills_from={folder}: its skills are not of these layers and sizes",
            "use the same base model, r, skills and target_modules",
        )
    for name, item in found.items():
        own[name].data.copy_(item)


@hookimpl
def register_methods() -> tuple[type[LowRankMethod], ...]:
    """Offer Poly."""
    return (Poly,)
