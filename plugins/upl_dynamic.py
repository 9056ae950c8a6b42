"""Dynamic unified prompt learning: a gate, set by the input, mixes a task prefix and an instance prefix."""

from __future__ import annotations

from peftselect import InstancePrefixMethod, Reference, Structure, hookimpl


class DynamicUpl(InstancePrefixMethod):
    """A mix of both prefixes that each instance sets."""

    name = "upl_dynamic"
    title = "Dynamic-UPL"
    summary = "Mixes a prefix of the task with one made from the input, by a gate: for few-shot tasks."
    aliases = ("dynamic_upl", "upl")
    structure = Structure(
        intra_connectivity="dense: generator, gate",
        inter_connectivity="dynamic",
        parameters_adapted="addition",
        parameter_sharing="shared: instances",
        input_type="data",
        insertion_form="parallel",
        insertions="all layers",
        integration_form="concatenation",
        workspace="attention: keys/values",
    )
    # the rate is that of the generator alone; the paper's is not public
    references = (
        Reference(
            "Unified Prompt Learning Makes Pre-trained Language Models Better Few-shot Learners",
            "https://ieeexplore.ieee.org/document/10095738",
            2023,
        ),
    )
    thesis = ("T2.8",)
    limits = (
        "Cannot be merged: every attention reads the longer keys and values.",
        "Encoders, and the encoder of an encoder-decoder: before a decoder the instance and its answer are one text.",
    )
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
