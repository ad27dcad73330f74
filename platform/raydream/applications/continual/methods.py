"""Ways to learn new classes, side by side: which images stand for the old ones, and what is minimized.

All losses have one signature: from a `LearningStep`, what both networks say of one batch, to a scalar.
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
        classes: int64 [N]; of images that were made, what they were to show.
    """

    old_logits: Tensor
    logits: Tensor
    old_features: Tensor
    features: Tensor
    classes: Tensor


@dataclass(frozen=True)
class LearningStep:
    """One batch: real images of the new classes, and as many that stand for the old ones.

    Attributes:
        new: the former.
        old: the latter; None where nothing does.
        head, old_head: the output layers of the learning and of the old network.
    """

    new: BothViews
    old: BothViews | None
    head: nn.Module
    old_head: nn.Module

    @property
    def stand_in(self) -> BothViews:
        """What stands for the old classes; raises ValueError where nothing does."""
        if self.old is None:
            raise ValueError("this method needs images that stand for the old classes")
        return self.old


@dataclass(frozen=True)
class Method:
    """A way to learn new classes.

    Attributes:
        images: what stands for the old classes; made: images inverted from the old network; real: images of theirs,
            which nobody has but for comparison; none.
        loss: what is minimized.
        synthesizer: makes the images where they are made, a key of `SYNTHESIZERS`.
        linear: whether it needs a linear output layer.
    """

    images: Literal["made", "real", "none"]
    loss: Callable[[LearningStep], Tensor]
    synthesizer: Literal["deepdream", "deep_inversion", "adaptive"] = "deep_inversion"
    linear: bool = False


def replay(step: LearningStep) -> Tensor:
    """Eq. 11: the old network's outputs on what stands for its classes, the labels of new images, and the old network's
    outputs on these."""
    old, new = step.stand_in, step.new
    kept = padded_divergence(old.old_logits, old.logits) + renormalized_divergence(new.old_logits, new.logits)
    return kept + classification(new.logits, new.classes)


def balanced_replay(step: LearningStep) -> Tensor:
    """Eq. 11 with a balanced softmax, and with ABD's hold on the features.

    However few the new classes are, half of each batch is theirs. Eq. 11 alone teaches that they are as frequent, so
    that in doubt old classes' images are named as new ones.
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
    """ABD's three losses (Smith et al., ICCV 2021), each of which sees as little as can be of what it might spoil.

    Features learn from new classes among themselves, and stay where old classes look at them; the output layer alone
    learns to tell old from new, so that made images and real ones are not told apart by their features.
    """
    old, new, old_classes = step.stand_in, step.new, step.new.old_logits.shape[1]
    among = local_classification(new.logits, new.classes, old_classes)
    logits = step.head(torch.cat([old.features, new.features]).detach())
    classes = torch.cat([old.classes, new.classes])
    told = balanced_classification(logits, classes, old_classes / new.logits.shape[1])
    return among + HEAD_DISTANCE * _moved(step) + told


def _moved(step: LearningStep) -> Tensor:
    """How far the features of old and of new images have moved, as ABD sees it."""
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
