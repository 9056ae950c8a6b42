"""PEFT Plug-in: what a small model of a family has learnt by LoRA is carried over to a large one without gradients."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, InputError, Reference, Stage, UnsupportedError, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import Method, ModelShape, StageContext

#: name of a module in a block: what stands before the block's number, the number, what stands after it
_PLACE = re.compile(r"^(.*?\.)(\d+)(\..*)$")


class PlugIn(Stage):
    """Updates of a small sibling, brought to the large model's width by a bridge between both models' embeddings."""

    name = "plug_in"
    title = "PEFT Plug-in"
    summary = "Adds to a large model what a small one of its family has learnt by LoRA; the large one is never trained."
    aliases = ("peft_plug_in", "plugin")
    family = "transfer"
    references = (
        Reference(
            "Parameter-efficient Tuning for Large Language Model without Calculating Its Gradients",
            "https://aclanthology.org/2023.emnlp-main.22",
            2023,
        ),
    )
    thesis = ("2.3",)
    places = frozenset({"before", "after"})
    limits = (
        "Both models share their vocabulary (T5, GPT-2 and the like), and the adapter is LoRA on attention layers.",
        "A task head is not carried over; with --method none the large model answers by its language-model head.",
    )
    simplified = (
        "The bridge is the least-squares map between both models' token embeddings; the paper trains a bridge model.",
        "A layer takes the update of the small model's layer at the same relative depth.",
    )

    def hyperparameters(self) -> Sequence[Hyperparameter]:
        """Whose updates, and how much of them."""
        return (
            Hyperparameter("adapter", None, "str", "folder of a LoRA adapter of a smaller model"),
            Hyperparameter("scale", 1.0, "float", "factor on the updates", 0.0, 10.0),
        )

    def refuse(self, shape: ModelShape, method: Method, values: Mapping[str, Any]) -> str | None:
        """An adapter is needed, of LoRA."""
        if not values["adapter"]:
            return "it needs an adapter of a smaller model: plug_in:adapter=DIR"
        kind = _config(Path(values["adapter"])).get("peft_type")
        return None if kind == "LORA" else f"{values['adapter']} is an adapter of {kind}, not of LoRA"

    def change(self, model: Any, values: Mapping[str, Any], context: StageContext) -> Any:
        """Add the bridged updates to the weights, in place."""
        import torch

        small, updates = _updates(Path(values["adapter"]), context)
        narrow, wide = (item.get_input_embeddings().weight.data.float() for item in (small, model))
        if len(narrow) != len(wide):
            raise UnsupportedError(
                f"the vocabularies differ: {len(narrow):,} and {len(wide):,} tokens", "take two models of one family"
            )
        out = torch.linalg.lstsq(narrow, wide).solution  # (small width, large width): small states to large ones
        back = torch.linalg.lstsq(wide, narrow).solution
        modules, number, width = dict(model.named_modules()), 0, narrow.shape[1]
        for name, (update, turned) in _matched(updates, list(modules)).items():
            weight = modules[name].weight
            delta = update.T if turned else update  # (out, in)
            onto, into = _blocks(out, delta.shape[0], width, name), _blocks(back, delta.shape[1], width, name)
            delta = (onto.T @ delta @ into.T) * values["scale"]
            weight.data += (delta.T if turned else delta).to(weight.dtype)
            number += 1
        context.report.update(layers_changed=number, small_width=narrow.shape[1], large_width=wide.shape[1])
        return model


def _config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{folder} holds no adapter", "give the --output of a run of lora on a smaller model"
        ) from error


def _updates(folder: Path, context: StageContext) -> tuple[Any, dict[str, tuple[Any, bool]]]:
    """The small model, and its updates by module: the matrix as the weight has it, and whether that is (in, out)."""
    from peft import PeftModel

    small = context.load(_config(folder)["base_model_name_or_path"])
    tuned = PeftModel.from_pretrained(small, str(folder))
    found = {}
    for name, module in tuned.base_model.model.named_modules():
        if hasattr(module, "get_delta_weight"):
            delta = module.get_delta_weight("default").detach().float()
            found[name] = delta, hasattr(module.get_base_layer(), "nf")
    return small, found


def _matched(updates: Mapping[str, tuple[Any, bool]], names: Sequence[str]) -> dict[str, tuple[Any, bool]]:
    """The update for each module of the large model: that of the same relative depth in the same stack."""
    by_kind: dict[tuple[str, str], dict[int, tuple[Any, bool]]] = {}
    for name, update in updates.items():
        if found := _PLACE.match(name):
            by_kind.setdefault((found[1], found[3]), {})[int(found[2])] = update
    places: dict[tuple[str, str], list[int]] = {}
    for name in names:
        if (found := _PLACE.match(name)) and (found[1], found[3]) in by_kind:
            places.setdefault((found[1], found[3]), []).append(int(found[2]))
    if not places:
        raise UnsupportedError("the large model has no layers of these names", "take two models of one family")
    matched = {}
    for (before, after), numbers in places.items():
        known = by_kind[before, after]
        depths = sorted(known)
        for rank, number in enumerate(sorted(numbers)):
            matched[f"{before}{number}{after}"] = known[depths[rank * len(depths) // len(numbers)]]
    return matched


def _blocks(bridge: Any, size: int, width: int, name: str) -> Any:
    """The bridge for a side of ``size`` features: repeated as often as the small model's ``width`` goes into that."""
    import torch

    if size % width:
        raise UnsupportedError(f"{name}: the bridge does not reach {size} features", "use LoRA on attention layers")
    return torch.kron(torch.eye(size // width, device=bridge.device), bridge.contiguous())


@hookimpl
def register_stages() -> tuple[type[Stage], ...]:
    """Offer PEFT Plug-in."""
    return (PlugIn,)
