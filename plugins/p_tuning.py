"""P-tuning (v1): a soft prompt that a small network makes while training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, SoftPromptMethod, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, ModelShape


class PTuning(SoftPromptMethod):
    """A soft prompt behind an encoder, of which only the result is saved."""

    name = "p_tuning"
    title = "P-tuning"
    summary = "A soft prompt made by a small network, which steadies its training and is thrown away after it."
    family = "additive"
    aliases = ("ptuning", "prompt_encoder")
    structure = Structure(
        intra_connectivity="dense: non-linear MLP/LSTM",
        inter_connectivity="fixed: dense",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="weights",
        insertion_form="parallel",
        insertions="1 layer",
        integration_form="concatenation",
        workspace="embedding layer",
    )
    references = (Reference("GPT Understands, Too", "https://arxiv.org/abs/2103.10385", 2021),)
    rate_from = (
        "ours (MiniLM on 1,200 sentences of SST-2: 0.65 at 5e-3; no other was tried); Liu et al. 2021 train the whole "
        "model along, at 1e-5 to 3e-5"
    )
    thesis = ("1.2.2",)
    formula = "n·d + (d·k + k) + (k² + k) + (k·d + d) for the MLP, k = encoder_hidden_size"

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Number of vectors, the network that makes them, and the rate."""
        return (
            self.tokens_setting(),
            Hyperparameter("encoder_hidden_size", 128, "int", "width of the network", 1, 16384, search=(128, 512)),
            Hyperparameter("encoder_type", "MLP", "str", "kind of network", choices=("MLP", "LSTM")),
            Hyperparameter("learning_rate", 5e-3, "float", "peak learning rate", 1e-6, 1.0, log=True),
        )

    def trainable_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """n vectors, peft's network (MLP of three layers, or two bidirectional LSTM and two linear ones), the head."""
        width, hidden = shape.embedding_size, int(values["encoder_hidden_size"])
        if values["encoder_type"] == "MLP":
            network = (width * hidden + hidden) + (hidden * hidden + hidden) + (hidden * width + width)
        else:
            first, second = (2 * 4 * hidden * (size + hidden + 2) for size in (width, 2 * hidden))
            network = first + second + (4 * hidden * hidden + 2 * hidden) + (2 * hidden * width + width)
        return self.saved_parameters(shape, values) + network

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """peft's PromptEncoderConfig."""
        from peft import PromptEncoderConfig

        return PromptEncoderConfig(
            encoder_reparameterization_type=values["encoder_type"],
            encoder_hidden_size=int(values["encoder_hidden_size"]),
            **self.prompt_arguments(shape, values, context),
        )


@hookimpl
def register_methods() -> tuple[type[SoftPromptMethod], ...]:
    """Offer P-tuning."""
    return (PTuning,)
