"""AdapterFusion: learns to weigh trained adapters of other tasks for the task at hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from peftselect import AdapterMethod, Hyperparameter, InputError, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class AdapterFusion(AdapterMethod):
    """The second stage of a pipeline: two or more Pfeiffer adapters of one make, fused by attention."""

    name = "adapter_fusion"
    title = "AdapterFusion"
    summary = (
        "Learns, token by token, how to weigh two or more trained adapters of other tasks, which stay as they are."
    )
    aliases = ("adapterfusion", "fusion")
    structure = Structure(
        intra_connectivity="dense: attention over adapters",
        inter_connectivity="dynamic",
        parameters_adapted="addition",
        parameter_sharing="across tasks",
        input_type="hidden",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="weighted addition",
        workspace="FFN",
    )
    references = (
        Reference(
            "AdapterFusion: Non-Destructive Task Composition for Transfer Learning",
            "https://arxiv.org/abs/2005.00247",
            2021,
        ),
    )
    rate_from = "Pfeiffer et al. 2021, section 4: 5e-5 for the fusion"
    formula = "N_ffn·(3·d² + 2·d)"
    thesis = ("2.3",)
    needs = "two or more adapters that adapter_pfeiffer trained on this base model: --set adapters=DIR,DIR"
    limits = (
        "Cannot be merged: every call of the model runs all adapters and the attention over them.",
        "Larger than what it fuses: three square matrices a block.",
    )
    simplified = ("Heads of the fused adapters are not used; the task gets a new one.",)
    acts_on = frozenset({"ffn"})
    roles = ("ffn_out",)
    starts_as_base = False

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """The adapters, and the rate."""
        return (
            Hyperparameter("adapters", (), "list", "folders of the trained adapters"),
            Hyperparameter("learning_rate", 5e-5, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def unsupported(self, shape: ModelShape, values: Mapping[str, Any]) -> str | None:
        """There must be adapters, all of one make, after the layers that this model has."""
        if len(values["adapters"]) < 2:
            return f"it needs {self.needs}"
        try:
            makes = {tuple(sorted(_make(folder).items())) for folder in values["adapters"]}
        except InputError as error:
            return error.message
        if len(makes) > 1:
            return "the adapters are not of one width and activation"
        return super().unsupported(shape, values)

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """3 d d + 2 d of the attention."""
        return 3 * site.out_features**2 + 2 * site.out_features

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """The fused adapters are in the file as well, so that it stands alone."""
        number, inner = _fused(values)
        own = sum(
            site.count * (2 * site.out_features * inner + inner + site.out_features)
            for site in self.sites(shape, values)
        )
        return self.trainable_parameters(shape, values) + number * own

    def kept_numbers(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """Outputs, keys, values and inner states of each adapter, what they read and the question."""
        number, inner = _fused(values)
        return site.out_features * (2 + 3 * number) + number * (inner + 2)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our FusionConfig."""
        from peftselect import FusionConfig

        make = _make(values["adapters"][0])
        return FusionConfig(
            adapters=len(values["adapters"]),
            bottleneck=int(make["bottleneck"]),
            activation=make["activation"],
            **self.tuner_arguments(shape, values, context),
        )

    def apply(self, model: Any, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """The fusion, with the trained adapters in it."""
        from safetensors.torch import load_file

        fused = super().apply(model, values, context)
        layers = [module for module in fused.modules() if hasattr(module, "psel_fusion_query")]
        for index, folder in enumerate(values["adapters"]):
            saved = load_file(Path(folder) / "adapter_model.safetensors")
            for layer in layers:
                key = f"base_model.model.{layer.key}.psel_bottleneck_"
                if f"{key}down.weight" not in saved:
                    raise ValueError(f"{folder} has no adapter after {layer.key}")
                parts = {
                    f"{name}{suffix}": saved[f"{key}{name}.{kind}"]
                    for name in ("down", "up")
                    for suffix, kind in (("", "weight"), ("_bias", "bias"))
                }
                layer.fill("default", index, parts)
        return fused


def _fused(values: Mapping[str, Any]) -> tuple[int, int]:
    """Number and inner width of the adapters; none yet count as two of 64."""
    folders = values["adapters"]
    return (len(folders), int(_make(folders[0])["bottleneck"])) if folders else (2, 64)


def _make(folder: str) -> dict[str, Any]:
    """Inner width and activation of a trained adapter; InputError where the folder holds no Pfeiffer adapter."""
    try:
        config = json.loads((Path(folder) / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{folder} holds no adapter ({type(error).__name__})") from error
    if config.get("peft_type") != "PSEL_BOTTLENECK" or config.get("input_modules"):
        raise InputError(f"{folder} holds no adapter of adapter_pfeiffer, but {config.get('peft_type')}")
    return {"bottleneck": config["bottleneck"], "activation": config["activation"]}


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer AdapterFusion."""
    return (AdapterFusion,)
