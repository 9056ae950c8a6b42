"""Instance-dependent prompts: a generator makes the prefix from the input."""

from __future__ import annotations

from peftselect import InstancePrefixMethod, Reference, hookimpl


class Idpt(InstancePrefixMethod):
    """Prefixes that differ from input to input."""

    name = "idpt"
    title = "IDPT"
    summary = "A small generator makes the prefix of every attention from the input itself: for few-shot understanding."
    aliases = ("idpg", "instance_dependent_prompt_tuning", "id_pt")
    # Wu et al. 2022, section 4: prompts of 5, generator width 16 to 256
    references = (
        Reference("IDPG: An Instance-Dependent Prompt Generation Method", "https://arxiv.org/abs/2204.04497", 2022),
        Reference(
            "Standing on the Shoulders of Giant Frozen Language Models", "https://arxiv.org/abs/2204.10019", 2022
        ),
    )
    rate_from = "Wu et al. 2022 search 1e-4 to 5e-3; up to a width of 1,024 ours, that of prefix tuning"
    thesis = ("T2.8",)
    simplified = (
        "The instance is the mean of its frozen input embeddings; the papers also read the encoder's own output.",
        "One generator with an output for each attention, of dense matrices, not of Kronecker products.",
    )
    mix = "instance"


@hookimpl
def register_methods() -> tuple[type[InstancePrefixMethod], ...]:
    """Offer instance-dependent prompts."""
    return (Idpt,)
