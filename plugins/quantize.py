"""Post-training quantization: the finished model is stored in 8 or 4 bits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from peftselect import Hyperparameter, Reference, Stage, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import StageContext

#: what transformers keeps as it is: heads are small, and a pooler may be new
_KEPT = ("pooler", "lm_head")


class Quantize(Stage):
    """LLM.int8() or 4-bit NormalFloat through bitsandbytes."""

    name = "quantize"
    title = "Quantization (post-training)"
    summary = "Stores the linear layers of the finished model in 8 or 4 bits; plain transformers loads the result."
    aliases = ("quantization", "ptq", "post_training_quantization")
    references = (
        Reference("LLM.int8(): 8-bit Matrix Multiplication for Transformers", "https://arxiv.org/abs/2208.07339", 2022),
        Reference("QLoRA: Efficient Finetuning of Quantized LLMs", "https://arxiv.org/abs/2305.14314", 2023),
    )  # fmt: skip
    thesis = ("2.2.3", "2.3")
    places = frozenset({"after"})
    last = True
    limits = (
        "A base quantised before the method is a setting of the run: --set quantization=nf4, or --method qlora.",
        "Training that knows of the rounding is a method of its own (quantization-aware training).",
    )

    def hyperparameters(self) -> Sequence[Hyperparameter]:
        """How many bits."""
        return (Hyperparameter("bits", 8, "int", "bits of a weight", 4, 8, choices=(4, 8)),)

    def change(self, model: Any, values: Mapping[str, Any], context: StageContext) -> Any:
        """The model saved and loaded again in fewer bits."""
        from transformers import BitsAndBytesConfig

        before = model.get_memory_footprint()
        model.save_pretrained(context.folder)
        kept = [f".*{name}" for name in (*context.shape.head.modules, *_KEPT)]
        arguments: dict[str, Any] = {"llm_int8_skip_modules": kept}
        if values["bits"] == 8:
            arguments["load_in_8bit"] = True
        else:
            arguments |= {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_use_double_quant": True}
        device = {"": model.device}
        small = context.reload(
            context.folder, quantization_config=BitsAndBytesConfig(**arguments), device_map=device, dtype=model.dtype
        )
        context.report.update(bytes_before=before, bytes_after=small.get_memory_footprint())
        return small


@hookimpl
def register_stages() -> tuple[type[Stage], ...]:
    """Offer post-training quantization."""
    return (Quantize,)
