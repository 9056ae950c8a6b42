"""Stages as they are written (``prune:sparsity=0.5``) and as they are planned; refused before anything is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from peftselect.errors import InputError, UnknownNameError, UnsupportedError
from peftselect.plugin_manager import host

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect.method import Candidate
    from peftselect.shape import ModelShape
    from peftselect.stage import Place, Stage


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its values and its place."""

    stage: Stage
    values: Mapping[str, Any]
    place: Place

    def to_json(self) -> dict[str, Any]:
        """As the record and ``--dry-run --json`` have it."""
        return {"stage": self.stage.name, "place": self.place, "values": dict(self.values)}

    def __str__(self) -> str:
        """As it is written."""
        settings = ",".join(f"{name}={value}" for name, value in self.values.items() if value is not None)
        return f"{self.stage.name}:{settings}" if settings else self.stage.name


def read_stages(before: Sequence[str], after: Sequence[str]) -> tuple[PlannedStage, ...]:
    """The stages in the order in which they are done; InputError or a child names the part that cannot be read."""
    return (*(_read(text, "before") for text in before), *(_read(text, "after") for text in after))


def _read(text: str, place: Place) -> PlannedStage:
    name, _, rest = text.partition(":")
    stage = host().stage(name)
    if place not in stage.places:
        known = " or ".join(f"--{other}" for other in sorted(stage.places))
        raise InputError(f"--{place} {text}: {stage.name} cannot stand there", f"write {known} {text}")
    settings = {setting.name: setting for setting in stage.hyperparameters()}
    values = {name: setting.default for name, setting in settings.items()}
    for part in filter(None, rest.split(",")):
        key, equals, value = (word.strip() for word in part.partition("="))
        if not equals:
            raise InputError(f"--{place} {text}: {part!r} is no setting", f"write {stage.name}:NAME=VALUE,NAME=VALUE")
        if key not in settings:
            raise UnknownNameError(f"setting of {stage.name}", key, sorted(settings))
        values[key] = settings[key].parse(value)
    return PlannedStage(stage, values, place)


def check_stages(stages: Sequence[PlannedStage], shape: ModelShape, candidate: Candidate) -> None:
    """UnsupportedError where a stage cannot be done with this model, method or recipe."""
    method = candidate.method
    for item in stages[:-1]:
        if item.stage.last:
            raise UnsupportedError(f"nothing can be done after {item.stage.name}", "write it last")
    for item in stages:
        name, changes = item.stage.name, item.stage.changes_weights
        if method.kind == "baseline" and (item.place == "before" or not changes):
            raise UnsupportedError(f"{name} cannot stand before {method.name}, which trains nothing", "use --after")
        if changes and candidate.recipe.quantization:
            raise UnsupportedError(
                f"{name} cannot change a base that is held in {candidate.recipe.quantization}",
                "add --set quantization=none, or choose a method that needs no quantised base",
            )
        if changes and item.place == "before" and not method.saves_adapter:
            raise UnsupportedError(
                f"{method.title} trains the very weights that {name} changes", f"write --after {item}, or an adapter"
            )
        if item.place == "after" and method.saves_adapter and not (method.mergeable or method.kind == "baseline"):
            raise UnsupportedError(
                f"{name} needs a whole model, and {method.title} cannot be merged into its base",
                f"write --before {name}, or choose a method that merges (`peftselect methods --matrix`)"
                if "before" in item.stage.places
                else "choose a method that merges (`peftselect methods --matrix`)",
            )
        if why := item.stage.refuse(shape, method, item.values):
            raise UnsupportedError(f"{name}: {why}", f"`peftselect methods {name}` says what it can")
