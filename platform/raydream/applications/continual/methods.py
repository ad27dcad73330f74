"""Methods to learn new classes: the images that represent the old ones, and the loss.

All losses share one signature: they map a `LearningStep`, both networks' outputs for one batch, to a scalar.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from raydream.losses.continual import (
    balanced_classification,
    balanced_logits,
    binary_distillation,
    classification,
    head_distance,
    local_classification,
    padded_divergence,
    renormalized_divergence,
)

HEAD_DISTANCE = 0.1
"""weight of ABD's distance of features (the paper for CIFAR-100: 0.1)"""


@dataclass(frozen=True)
class BothViews:
    """Images, as the old network and the learning one see them; N images, D features, K0 old classes, K all.

    Attributes:
        old_logits, logits: [N,K0] and [N,K].
        old_features, features: [N,D], that enter the networks' output layers.
        classes: int64 [N]; of made images, their targets.
    """

    old_logits: Tensor
    logits: Tensor
    old_features: Tensor
    features: Tensor
    classes: Tensor


@dataclass(frozen=True)
class LearningStep:
    """One batch: real images of the new classes, and the same number of images of the old ones.

    Attributes:
        new: the images of the new classes.
        old: the images of the old classes; None without them.
        head, old_head: the output layers of the learning and of the old network.
    """

    new: BothViews
    old: BothViews | None
    head: nn.Module
    old_head: nn.Module

    @property
    def stand_in(self) -> BothViews:
        """Return the images of the old classes; raises ValueError without them."""
        if self.old is None:
            raise ValueError("this method needs images that stand for the old classes")
        return self.old


@dataclass(frozen=True)
class Method:
    """A way to learn new classes.

    Attributes:
        images: the images of the old classes; made: inverted from the old network; real: real ones, available only for
            comparison; none.
        loss: the loss to minimize.
        synthesizer: makes the images where they are made, a key of `SYNTHESIZERS`.
        linear: whether it needs a linear output layer.
    """

    images: Literal["made", "real", "none"]
    loss: Callable[[LearningStep], Tensor]
    synthesizer: Literal["deepdream", "deep_inversion", "adaptive"] = "deep_inversion"
    linear: bool = False


def replay(step: LearningStep) -> Tensor:
    """Eq. 11: the old network's outputs on images of its classes and on new ones, and the new ones' labels."""
    old, new = step.stand_in, step.new
    kept = padded_divergence(old.old_logits, old.logits) + renormalized_divergence(new.old_logits, new.logits)
    return kept + classification(new.logits, new.classes)


def balanced_replay(step: LearningStep) -> Tensor:
    """Eq. 11 with a balanced softmax and ABD's feature distance.

    Half of each batch is of new classes, however few they are. Eq. 11 alone learns this frequency, so that ambiguous
    images of old classes are classified as new ones.
    """
    old, new, old_classes = step.stand_in, step.new, step.new.old_logits.shape[1]
    kept = padded_divergence(old.old_logits, balanced_logits(old.logits, old_classes))
    kept = kept + renormalized_divergence(new.old_logits, new.logits) + HEAD_DISTANCE * _moved(step)
    return kept + classification(balanced_logits(new.logits, old_classes), new.classes)


def oracle_distill(step: LearningStep) -> Tensor:
    """Eq. 11 without its third term; meant for real images of the old classes."""
    old, new = step.stand_in, step.new
    return padded_divergence(old.old_logits, old.logits) + classification(new.logits, new.classes)


def oracle_classify(step: LearningStep) -> Tensor:
    """Cross-entropy with the labels of old and new images."""
    old, new = step.stand_in, step.new
    return classification(old.logits, old.classes) + classification(new.logits, new.classes)


def lwf_mc(step: LearningStep) -> Tensor:
    """A binary cross-entropy for each class, on new images alone."""
    return binary_distillation(step.new.old_logits, step.new.logits, step.new.classes)


def finetune(step: LearningStep) -> Tensor:
    """Cross-entropy with the labels of new images, and nothing that keeps the old classes."""
    return classification(step.new.logits, step.new.classes)


def always_be_dreaming(step: LearningStep) -> Tensor:
    """ABD's three losses (Smith et al., ICCV 2021), each restricted to the outputs that it should change.

    Features learn from the new classes alone, and stay fixed along directions that old classes use; only the output
    layer learns to separate old from new, so that features do not separate made images from real ones.
    """
    old, new, old_classes = step.stand_in, step.new, step.new.old_logits.shape[1]
    among = local_classification(new.logits, new.classes, old_classes)
    logits = step.head(torch.cat([old.features, new.features]).detach())
    classes = torch.cat([old.classes, new.classes])
    between = balanced_classification(logits, classes, old_classes / new.logits.shape[1])
    return among + HEAD_DISTANCE * _moved(step) + between


def _moved(step: LearningStep) -> Tensor:
    """Compute ABD's distance that the features of old and of new images have moved."""
    weight = step.old_head.weight
    assert isinstance(weight, Tensor)
    old, new = step.stand_in, step.new
    return head_distance(old.old_features, old.features, weight) + head_distance(new.old_features, new.features, weight)


METHODS: dict[str, Method] = {
    "deep_inversion": Method("made", replay, "deep_inversion"),
    "adaptive": Method("made", replay, "adaptive"),
    "deepdream": Method("made", replay, "deepdream"),
    "balanced": Method("made", balanced_replay, "deep_inversion", linear=True),
    "abd": Method("made", always_be_dreaming, "deep_inversion", linear=True),
    "lwf_mc": Method("none", lwf_mc),
    "finetune": Method("none", finetune),
    "oracle_distill": Method("real", oracle_distill),
    "oracle_classify": Method("real", oracle_classify),
}
