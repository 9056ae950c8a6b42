"""Dynamic unified prompt learning: a gate, set by the input, mixes a task prefix and an instance prefix."""

from __future__ import annotations

from dataclasses import replace

from peftselect import InstancePrefixMethod, Reference, hookimpl


class DynamicUpl(InstancePrefixMethod):
    """A mix of both prefixes that each instance sets."""

    name = "upl_dynamic"
    title = "Dynamic-UPL"
    summary = "Mixes a prefix of the task with one made from the input, by a gate: for few-shot tasks."
    aliases = ("dynamic_upl", "upl")
    structure = replace(InstancePrefixMethod.structure, intra_connectivity="dense: generator, gate")
    references = (
        Reference(
            "Unified Prompt Learning Makes Pre-trained Language Models Better Few-shot Learners",
            "https://ieeexplore.ieee.org/document/10095738",
            2023,
        ),
    )
    rate_from = "ours: up to a width of 1,024 that of prefix tuning, beyond the generator's; the paper's is not public"
    thesis = ("T2.8",)
    simplified = (
        "The instance is the mean of its frozen input embeddings; the papers also read the encoder's own output.",
        "Trained under the task's usual head; the paper fills a template by a masked language model.",
        "The gate is a logistic regression on the instance: neither code nor full text of the paper is public.",
    )
    mix = "dynamic"


@hookimpl
def register_methods() -> tuple[type[InstancePrefixMethod], ...]:
    """Offer Dynamic-UPL."""
    return (DynamicUpl,)
