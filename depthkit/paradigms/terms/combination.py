"""Combinations of the terms of a batch to one step: sum, mean over datasets, or min-norm point (MGDA)."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from depthkit.checks import check_choice
from depthkit.errors import RecipeError
from depthkit.paradigms.terms.labels import mean_over_ranks
from depthkit.paradigms.terms.pareto import Normalisation, carry_gradient, combine, flat_gradient, min_norm_combination
from depthkit.paradigms.terms.term import Term, check_terms, mean_of, means_per_group
from depthkit.types import Batch


class Step(NamedTuple):
    """Result of a combination.

    Attributes:
        total: scalar whose gradient the optimizer follows.
        logged: values to log, by name; NaN without anything to average.
    """

    total: Tensor
    logged: dict[str, Tensor]


class Combination(ABC):
    """A rule that combines the terms of a batch; ``module`` has ``losses``, ``dataset_names``, ``parameters`` and ``model``."""

    @abstractmethod
    def __call__(self, module: Any, batch: Batch) -> Step:
        """Compute the terms of a batch and combine them."""

    def check(self, precision: str) -> None:  # noqa: B027 - most combinations work in any
        """Raise a ``RecipeError`` if the combination cannot work in the trainer's precision."""


@dataclass
class SumOfTerms(Combination):
    """The weighted sum of the terms, each the mean over what it counts on all ranks."""

    def __call__(self, module: Any, batch: Batch) -> Step:
        """Add up the means."""
        terms = _terms(module, batch)
        means = {name: mean_of(term) for name, term in terms.items()}
        weighted = (term.weight * means[name][0] for name, term in terms.items() if term.weight)
        total = sum(weighted, torch.zeros((), device=batch.image.device))
        return Step(total, {f"train/{name}": mean.detach().where(some, torch.nan) for name, (mean, some) in means.items()})


@dataclass
class EqualWeights(Combination):
    """The mean over the datasets in the batch of each one's objective, whatever its number of images (MiDaS, section 4)."""

    def __call__(self, module: Any, batch: Batch) -> Step:
        """Average the datasets' objectives."""
        losses, present = _objectives(_terms(module, batch), batch.dataset, len(_names(module, batch)))
        total = combine(present / present.sum().clamp_min(1), losses)
        return Step(total, _by_dataset(module.dataset_names, losses, present))


class GradientScope(StrEnum):
    """Parameters whose gradients are compared for the min-norm point."""

    ALL = "all"
    LAST_SHARED_LAYER = "last_shared_layer"


class Forward(StrEnum):
    """Rows of one pass of the network: the mixed batch, or the rows of one dataset."""

    MIXED = "mixed"
    PER_DATASET = "per_dataset"


@dataclass
class MinNorm(Combination):
    """The min-norm combination of the datasets' gradients (MGDA; Sener & Koltun 2018, Desideri 2012).

    MGDA-UB is not offered: it needs one input for all objectives.

    Args:
        scope: ``all`` takes the min-norm point over all trainable parameters (exact); ``last_shared_layer`` over
            ``model.last_layer`` only, a heuristic for one extra tiny backward per dataset.
        normalisation: divisor of each gradient before the min-norm point is found.
        forward: ``per_dataset`` runs each dataset's rows alone, so that an exact step costs about one ordinary step instead
            of one per dataset; batch normalisation, unless frozen, then normalises each dataset alone. ``mixed`` runs the
            whole batch.

    Raises:
        RecipeError: an unknown choice, or ``per_dataset`` with ``last_shared_layer``, which has one forward pass.
    """

    scope: GradientScope | str = GradientScope.ALL
    normalisation: Normalisation | str = Normalisation.NONE
    forward: Forward | str = Forward.MIXED

    def __post_init__(self) -> None:
        for name, words in (("scope", GradientScope), ("normalisation", Normalisation), ("forward", Forward)):
            setattr(self, name, check_choice(name, getattr(self, name), words))
        if self.scope == GradientScope.LAST_SHARED_LAYER and self.forward == Forward.PER_DATASET:
            raise RecipeError("expected forward='mixed' with scope='last_shared_layer', which has one forward pass.")

    def check(self, precision: str) -> None:
        """Refuse float16, whose gradients need a loss scale that this combination does not have.

        Raises:
            RecipeError: the precision is float16.
        """
        if "16" in precision and "bf16" not in precision:
            raise RecipeError(
                f"expected a precision without a loss scale for MinNorm, so that float16 loses no gradient; got {precision}. "
                "Use trainer.precision=bf16-mixed."
            )

    def __call__(self, module: Any, batch: Batch) -> Step:
        """Find the weights and carry the combined gradient."""
        names = _names(module, batch)
        parameters = [p for p in module.parameters() if p.requires_grad]
        if self.scope == GradientScope.LAST_SHARED_LAYER:
            losses, present = _objectives(_terms(module, batch), batch.dataset, len(names))
            layer = [p for p in module.model.last_layer.parameters() if p.requires_grad]
            rows = torch.stack([flat_gradient(loss, layer, retain_graph=True) for loss in losses])
            weights, logged = self._weights(names, rows, mean_over_ranks(losses.detach()), present)
            return Step(combine(weights, losses), logged | _by_dataset(names, losses, present))
        make = self._one_pass_per_dataset if self.forward == Forward.PER_DATASET else self._one_pass
        rows, losses, present = make(module, batch, parameters)
        losses = mean_over_ranks(losses.detach())
        weights, logged = self._weights(names, rows, losses, present)
        total = carry_gradient(combine(weights, losses), combine(weights, rows), parameters)
        return Step(total, logged | _by_dataset(names, losses, present))

    def _weights(self, names: Sequence[str], rows: Tensor, losses: Tensor, present: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        weights, taking_part = min_norm_combination(rows, losses, present, self.normalisation)
        logged = {f"pareto/{name}": weight for name, weight in zip(names, weights, strict=True)}
        return weights, logged | {"pareto/non_finite": (present & ~taking_part).sum().float()}

    @staticmethod
    def _one_pass(module: Any, batch: Batch, parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor, Tensor]:
        count = len(module.dataset_names)
        losses, present = _objectives(_terms(module, batch), batch.dataset, count)
        rows = torch.stack([flat_gradient(losses[k], parameters, retain_graph=k + 1 < count) for k in range(count)])
        return rows, losses, present

    @staticmethod
    def _one_pass_per_dataset(module: Any, batch: Batch, parameters: list[nn.Parameter]) -> tuple[Tensor, Tensor, Tensor]:
        rows, losses, present = [], [], []
        dataset = batch.on_host(batch.dataset)
        first = int(dataset.min())
        known = _terms(module, batch.rows(dataset == first))  # whose names a dataset that this rank lacks has, too
        for k in range(len(module.dataset_names)):
            part = batch.rows(dataset == k)
            terms = _nothing(known, parameters, batch) if not len(part) else known if k == first else _terms(module, part)
            loss, here = _objectives(terms, part.dataset, len(module.dataset_names))
            rows.append(flat_gradient(loss[k], parameters))
            losses.append(loss[k])
            present.append(here[k])
        return torch.stack(rows), torch.stack(losses), torch.stack(present)


def _names(module: Any, batch: Batch) -> Sequence[str]:
    """Return the datasets' names, one for each position in ``Batch.dataset``."""
    names: Sequence[str] = module.dataset_names
    if (last := int(batch.on_host(batch.dataset).max())) >= len(names):
        raise RecipeError(
            f"expected Batch.dataset as positions in dataset_names, here {', '.join(names)}; got {last}. Name your training "
            "sets in their order: module.dataset_names = ('a', 'b')."
        )
    return names


def _terms(module: Any, batch: Batch) -> Mapping[str, Term]:
    terms: Mapping[str, Term] = module.losses(batch)
    check_terms(terms, len(batch), type(module).__name__)
    return terms


def _nothing(known: Mapping[str, Term], parameters: Sequence[nn.Parameter], batch: Batch) -> dict[str, Term]:
    """Make terms of no image, so that a rank without a dataset takes part in the means over ranks."""
    none = torch.zeros(0, dtype=torch.bool, device=batch.image.device)
    values = sum(p.sum() for p in parameters) * none.float()
    return {name: Term(values, none, term.weight) for name, term in known.items()}


def _objectives(terms: Mapping[str, Term], dataset: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Compute each dataset's weighted sum of means, ``(K,)``, and which datasets are present, bool ``(K,)``."""
    total = torch.zeros(count, device=dataset.device)
    present = torch.zeros(count, dtype=torch.bool, device=dataset.device)
    for term in terms.values():
        if term.weight:
            mean, here = means_per_group(term, dataset, count)
            total, present = total + term.weight * mean, present | here
    return total, present


def _by_dataset(names: Sequence[str], losses: Tensor, present: Tensor) -> dict[str, Tensor]:
    logged = zip(names, losses.detach(), present, strict=True)
    return {f"train/{name}": loss.where(here, torch.nan) for name, loss, here in logged}
