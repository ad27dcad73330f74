"""The objective: the weighted sum of named loss terms that an inversion minimises (eq. 2-9)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from raydream.config import SynthesisConfig
from raydream.losses.divergences import competition
from raydream.losses.feature_statistics import feature_statistics
from raydream.losses.image_prior import image_norm, total_variation


@dataclass(frozen=True)
class Observation:
    """All that a term may look at after one forward pass.

    Attributes:
        images: [N,C,H,W] after normalisation, as the networks saw them (jittered, mirrored).
        targets: int64 [N], the class that each image is to show.
        teacher_logits: [N,K].
        distances: [L], the feature distance of each BN layer; None where no term asks for it.
        student_logits: [N,K]; None where nobody competes.
    """

    images: Tensor
    targets: Tensor
    teacher_logits: Tensor
    distances: Tensor | None = None
    student_logits: Tensor | None = None


Term = Callable[[Observation, SynthesisConfig], Tensor]


def _feature(seen: Observation, config: SynthesisConfig) -> Tensor:
    if seen.distances is None:
        raise ValueError("the feature term needs the BN layers' distances: run the teacher under a FeatureObserver")
    return feature_statistics(seen.distances, config.first_bn)


def _competition(seen: Observation, config: SynthesisConfig) -> Tensor:
    if seen.student_logits is None:
        raise ValueError("the competition term needs a student's logits")
    return competition(seen.teacher_logits, seen.student_logits, config.competition_temperature)


TERMS: dict[str, Term] = {
    "classification": lambda seen, config: functional.cross_entropy(seen.teacher_logits, seen.targets),
    "tv": lambda seen, config: total_variation(seen.images),
    "l2": lambda seen, config: image_norm(seen.images),
    "feature": _feature,
    "competition": _competition,
}


class Objective:
    """The sum of the named terms, each times its coefficient; a term whose coefficient is 0 is not computed.

    Args:
        names: keys of `TERMS`.
        config: the coefficients, and what the terms themselves are set by.
    """

    def __init__(self, names: Iterable[str], config: SynthesisConfig) -> None:
        weights = {name: float(getattr(config.coefficients, name)) for name in names}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._config = config

    def __call__(self, seen: Observation) -> tuple[Tensor, dict[str, Tensor]]:
        """The total to minimise (a scalar), and each term's value before its coefficient."""
        values = {name: TERMS[name](seen, self._config) for name in self.weights}
        total = seen.images.new_zeros(())
        for name, weight in self.weights.items():
            total = total + weight * values[name]
        return total, values
