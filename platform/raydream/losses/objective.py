"""The objective: the weighted sum of named loss terms that an inversion minimizes (eq. 2-9)."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from torch import Tensor
from torch.nn import functional

from raydream.config import SynthesisConfig
from raydream.losses.dafl import activation, information_entropy, one_hot
from raydream.losses.divergences import competition, masked_kl
from raydream.losses.feature_statistics import feature_statistics
from raydream.losses.image_prior import image_norm, mean_image_norm, total_variation, total_variation_l1


@dataclass(frozen=True)
class Observation:
    """The values that terms may use after one forward pass; those that no term of the objective uses may be None.

    Attributes:
        images: [N,C,H,W] on the canvas, as the networks saw them (jittered, mirrored).
        targets: int64 [N], the class that each image is to show.
        teacher_logits: [N,K].
        distances: [L], the feature distance of each BN layer.
        student_logits: [N,K].
        activations: [N,D], what entered the teacher's last layer.
        prediction: [K], the mean of the teacher's probabilities over all images of the batch.
    """

    images: Tensor | None = None
    targets: Tensor | None = None
    teacher_logits: Tensor | None = None
    distances: Tensor | None = None
    student_logits: Tensor | None = None
    activations: Tensor | None = None
    prediction: Tensor | None = None


Signal = Literal["images", "outputs", "features", "prediction"]


@dataclass(frozen=True)
class Term:
    """One loss term.

    Attributes:
        of: what it is a function of, which decides how a batch larger than memory is processed. images: all pixels
            at once; outputs: a mean over images of what the networks say of each; features: the statistics of all
            images together; prediction: the mean probabilities of all images together.
        value: the term itself, a scalar.
        activations: whether it uses the input of the teacher's last layer, which is observed only for such terms.
    """

    of: Signal
    value: Callable[[Observation, SynthesisConfig], Tensor]
    activations: bool = False


def _needed(value: Tensor | None, what: str) -> Tensor:
    if value is None:
        raise ValueError(f"a term of the objective needs {what}")
    return value


def _images(term: Callable[[Tensor], Tensor]) -> Term:
    return Term("images", lambda seen, config: term(_needed(seen.images, "the images")))


def _classification(seen: Observation, config: SynthesisConfig) -> Tensor:
    logits = _needed(seen.teacher_logits, "the teacher's logits")
    return functional.cross_entropy(logits, _needed(seen.targets, "the targets"))


def _feature(seen: Observation, config: SynthesisConfig) -> Tensor:
    return feature_statistics(_needed(seen.distances, "the BN layers' distances"), config.first_bn)


def _competition(seen: Observation, config: SynthesisConfig) -> Tensor:
    teacher = _needed(seen.teacher_logits, "the teacher's logits")
    return competition(teacher, _needed(seen.student_logits, "a student's logits"), config.competition_temperature)


def _masked_kl(seen: Observation, config: SynthesisConfig) -> Tensor:
    teacher = _needed(seen.teacher_logits, "the teacher's logits")
    return masked_kl(teacher, _needed(seen.student_logits, "a student's logits"))


def _one_hot(seen: Observation, config: SynthesisConfig) -> Tensor:
    return one_hot(_needed(seen.teacher_logits, "the teacher's logits"))


def _activation(seen: Observation, config: SynthesisConfig) -> Tensor:
    return activation(_needed(seen.activations, "what enters the teacher's last layer"))


def _information_entropy(seen: Observation, config: SynthesisConfig) -> Tensor:
    return information_entropy(_needed(seen.prediction, "the teacher's mean prediction"))


TERMS: dict[str, Term] = {
    "classification": Term("outputs", _classification),
    "tv": _images(total_variation),
    "tv_l1": _images(total_variation_l1),
    "l2": _images(image_norm),
    "l2_per_image": _images(mean_image_norm),
    "feature": Term("features", _feature),
    "competition": Term("outputs", _competition),
    "masked_kl": Term("outputs", _masked_kl),
    "one_hot": Term("outputs", _one_hot),
    "activation": Term("outputs", _activation, activations=True),
    "information_entropy": Term("prediction", _information_entropy),
}


class Objective:
    """The sum of the named terms, each times its coefficient; a term whose coefficient is 0 is not computed.

    Args:
        names: keys of `TERMS`.
        config: the coefficients, and the terms' own settings.
    """

    def __init__(self, names: Iterable[str], config: SynthesisConfig) -> None:
        weights = {name: float(getattr(config.coefficients, name)) for name in names}
        self.weights = {name: weight for name, weight in weights.items() if weight > 0}
        self._config = config

    def __call__(self, seen: Observation, *sources: Signal) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the total to minimize (a scalar), and each term's value before its coefficient.

        Args:
            sources: only terms of these; none given: all terms.
        """
        values = {
            name: TERMS[name].value(seen, self._config)
            for name in self.weights
            if not sources or TERMS[name].of in sources
        }
        weighted = [self.weights[name] * value for name, value in values.items()]
        return sum(weighted[1:], start=weighted[0]), values

    def has(self, source: Signal) -> bool:
        """Return whether any term is of this source."""
        return any(TERMS[name].of == source for name in self.weights)

    def of_activations(self) -> list[str]:
        """Return the names of the terms that use the input of the teacher's last layer."""
        return [name for name in self.weights if TERMS[name].activations]
