"""Losses of learning new classes without the old ones' images (section 4.5, eq. 11, and its rivals).

Letters: N images, K0 old classes, K all classes; old ones come first. Each is a mean over the batch, a scalar in nats.
"""

import torch
from torch import Tensor
from torch.nn import functional


def padded_divergence(old_logits: Tensor, logits: Tensor) -> Tensor:
    """Eq. 11's first term: KL(p_o padded with zeros || p_k), on images that stand for the old classes.

    A class of probability 0 adds nothing, but p_k is normalized over all classes, so probability that the learning
    network assigns to new classes is penalized.

    Args:
        old_logits: [N,K0] of the old network.
        logits: [N,K] of the learning one.
    """
    log_old = functional.log_softmax(old_logits, dim=1)
    log_new = functional.log_softmax(logits, dim=1)[:, : old_logits.shape[1]]
    return functional.kl_div(log_new, log_old, reduction="batchmean", log_target=True)


def classification(logits: Tensor, labels: Tensor) -> Tensor:
    """Eq. 11's second term: cross-entropy over all classes, on real images of the new ones.

    Args:
        logits: [N,K].
        labels: int64 [N], in [0, K).
    """
    return functional.cross_entropy(logits, labels)


def renormalized_divergence(old_logits: Tensor, logits: Tensor) -> Tensor:
    """Eq. 11's third term: KL(p_o || p_k renormalized over the old classes), on real images of the new ones.

    The old network's relative answers to images of none of its classes are preserved.

    Args:
        old_logits: [N,K0] of the old network.
        logits: [N,K] of the learning one; a softmax over the first K0 of them is p_k renormalized.
    """
    log_old = functional.log_softmax(old_logits, dim=1)
    log_kept = functional.log_softmax(logits[:, : old_logits.shape[1]], dim=1)
    return functional.kl_div(log_kept, log_old, reduction="batchmean", log_target=True)


def balanced_logits(logits: Tensor, old: int) -> Tensor:
    """Logits plus the log of how often their classes are in a batch half of which is of old classes, half of new ones.

    For losses that minimize a cross-entropy or a divergence of these, the network's own logits then treat all classes
    as equally frequent: the balanced softmax (Ren et al., NeurIPS 2020, eq. 4), or logit adjustment (Menon et al., ICLR
    2021). Loss weights would not do this: they have no effect on a network that classifies all images correctly.

    Args:
        logits: [N,K] of the learning network.
        old: K0, in (0, K).
    """
    new = logits.shape[1] - old
    often = logits.new_tensor([0.5 / old] * old + [0.5 / new] * new)
    return logits + often.log()


def binary_distillation(old_logits: Tensor, logits: Tensor, labels: Tensor) -> Tensor:
    """LwF.MC (Rebuffi et al., iCaRL, CVPR 2017, section 3.4 and its baseline): a binary cross-entropy for each class.

    Targets of new classes are the labels, those of old ones by the sigmoids of the old network's outputs on the same
    images.

    Args:
        old_logits: [N,K0] of the old network.
        logits: [N,K] of the learning one.
        labels: int64 [N], in [K0, K).

    Returns:
        the sum over the classes, mean over the batch.
    """
    old = old_logits.shape[1]
    targets = functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    targets = torch.cat([old_logits.sigmoid(), targets[:, old:]], dim=1)
    return functional.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)


def local_classification(logits: Tensor, labels: Tensor, old: int) -> Tensor:
    """Cross-entropy among the new classes alone, so that new images do not push the old classes' outputs down.

    From "Always Be Dreaming" (Smith et al., ICCV 2021), which calls it local.

    Args:
        logits: [N,K].
        labels: int64 [N], in [old, K).
        old: K0.
    """
    return functional.cross_entropy(logits[:, old:], labels - old)


def balanced_classification(logits: Tensor, labels: Tensor, share: float) -> Tensor:
    """Cross-entropy over all classes, of old and new images together, as though all classes were equally frequent.

    Args:
        logits: [N,K], those of the images of old classes first.
        labels: int64 [N], in [0, K); those of old images are their synthesis targets.
        share: the share of old classes among all, in (0, 1); half of the batch is of old classes, half of new ones.
    """
    each = functional.cross_entropy(logits, labels, reduction="none")
    old, new = each.chunk(2)
    return share * old.mean() + (1.0 - share) * new.mean()


def head_distance(old_features: Tensor, features: Tensor, weight: Tensor) -> Tensor:
    """Squared feature drift, as far as the old output layer reads it: ||W (phi_o - phi_k)||^2 / 2.

    The importance-weighted feature distillation of "Always Be Dreaming" (Smith et al., ICCV 2021). Directions that no
    old class uses are free for new ones.

    Args:
        old_features, features: [N,D] that enter the output layers of the old and of the learning network.
        weight: [K0,D] of the old output layer.
    """
    return 0.5 * functional.linear(features - old_features, weight).square().sum(dim=1).mean()
