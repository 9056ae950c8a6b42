"""SparseAdapter and Large-Sparse: adapters pruned before training, of the usual width or of twice that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from peftselect import AdapterMethod, Hyperparameter, Reference, Structure, hookimpl

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from peftselect import ApplyContext, LinearModule, ModelShape


class SparseAdapter(AdapterMethod):
    """Houlsby's adapters of which four weights in five are cut off at the start."""

    name = "sparse_adapter"
    title = "SparseAdapter"
    summary = "Adapters most of whose weights are pruned before training: as good as dense ones, smaller to store."
    aliases: ClassVar[tuple[str, ...]] = ("sparseadapter",)
    structure = Structure(
        intra_connectivity="sparse: non-linear MLP",
        inter_connectivity="fixed: sparse",
        parameters_adapted="addition",
        parameter_sharing="none",
        input_type="hidden",
        insertion_form="sequential",
        insertions="all layers",
        integration_form="direct addition",
        workspace="FFN; attention",
    )
    # He et al. 2022, section 3: sparsities 40 to 80 %, inner width 64; Large-Sparse widens so that as many are left
    references = (
        Reference(
            "SparseAdapter: An Easy Approach for Improving the Parameter-Efficiency of Adapters",
            "https://arxiv.org/abs/2210.04284",
            2022,
        ),
    )
    rate_from = "ours, as for Houlsby's adapters; the authors' script has 1e-4 over 10 epochs"
    thesis = ("2.3",)
    limits = (
        "Cannot be merged: every call of the model pays for the adapters.",
        "Sparsity saves storage and optimizer states, no time: matrices are written out to be multiplied.",
    )
    simplified = ("Pruned by size or at random; the paper's SNIP, GraSP and SynFlow scores are not there.",)
    acts_on = frozenset({"attention", "ffn"})
    starts_as_base = False
    default_sparsity: ClassVar[float] = 0.8

    def hyperparameters(self, shape: ModelShape) -> Sequence[Hyperparameter]:
        """Inner width before pruning, activation, sparsity, score and rate."""
        return (
            self.bottleneck_setting(),
            self.activation_setting("gelu"),
            Hyperparameter(
                "sparsity", self.default_sparsity, "float", "share of each matrix that is cut off", 0, 0.999,
                search=(0.4, 0.5, 0.8),
            ),
            Hyperparameter("score", "magnitude", "str", "what is kept", choices=("magnitude", "random")),
            self.rate_setting(),
        )  # fmt: skip

    def _kept(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """Weights of one matrix that are left."""
        return max(round((1 - float(values["sparsity"])) * site.out_features * int(values["bottleneck"])), 1)

    def site_parameters(self, site: LinearModule, values: Mapping[str, Any]) -> int:
        """What is left of 2 d b, and the biases."""
        return 2 * self._kept(site, values) + int(values["bottleneck"]) + site.out_features

    def saved_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """Numbers in the file: each weight that is left has its place beside it."""
        places = sum(2 * site.count * self._kept(site, values) for site in self.sites(shape, values))
        return self.trainable_parameters(shape, values) + places

    def changed_parameters(self, shape: ModelShape, values: Mapping[str, Any]) -> int:
        """All that are trained."""
        return self.trainable_parameters(shape, values)

    def peft_config(self, shape: ModelShape, values: Mapping[str, Any], context: ApplyContext) -> Any:
        """Our SparseBottleneckConfig."""
        from peftselect import SparseBottleneckConfig

        return SparseBottleneckConfig(
            bottleneck=int(values["bottleneck"]),
            activation=values["activation"],
            sparsity=values["sparsity"],
            score=values["score"],
            **self.tuner_arguments(shape, values, context),
        )


class LargeSparse(SparseAdapter):
    """Twice the width at half the weights: as many parameters, more room."""

    name = "large_sparse"
    title = "Large-Sparse adapter"
    summary = "Adapters of twice the width with half of the weights pruned: dense adapters' size, more capacity."
    aliases = ("large_sparse_adapter", "largesparse")
    default_bottleneck = 128
    default_sparsity = 0.5


@hookimpl
def register_methods() -> tuple[type[AdapterMethod], ...]:
    """Offer both."""
    return (SparseAdapter, LargeSparse)
