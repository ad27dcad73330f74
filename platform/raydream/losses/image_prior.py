"""What natural images have in common: neighbouring pixels are alike, and values are small (eq. 3)."""

import torch
from torch import Tensor


def _differences(images: Tensor) -> tuple[Tensor, ...]:
    """The difference images to the right, down and along both diagonals."""
    return (
        images[..., :, 1:] - images[..., :, :-1],
        images[..., 1:, :] - images[..., :-1, :],
        images[..., 1:, 1:] - images[..., :-1, :-1],
        images[..., 1:, :-1] - images[..., :-1, 1:],
    )


def total_variation(images: Tensor) -> Tensor:
    """R_TV of eq. 3: the Frobenius norms of four difference images (right, down and both diagonals), added up.

    The norm is not squared and is taken over the whole batch, as in the published code; so the value grows with
    the square root of N, and a coefficient belongs to a batch size.

    Args:
        images: [N,C,H,W], H and W >= 2.

    Returns:
        a scalar >= 0, in units of the images.
    """
    return torch.stack([torch.linalg.vector_norm(difference) for difference in _differences(images)]).sum()


def total_variation_l1(images: Tensor) -> Tensor:
    """The l1 form of R_TV, beside the other in the published code: the mean absolute differences, added up.

    Being means, it does not depend on the batch size.

    Args:
        images: [N,C,H,W], H and W >= 2.

    Returns:
        a scalar >= 0, in units of the images.
    """
    return torch.stack([difference.abs().mean() for difference in _differences(images)]).sum()


def image_norm(images: Tensor) -> Tensor:
    """R_l2 of eq. 3: the Euclidean norm of the whole batch, not squared (the published CIFAR-10 code).

    Args:
        images: [N,C,H,W].
    """
    norm: Tensor = torch.linalg.vector_norm(images)
    return norm


def mean_image_norm(images: Tensor) -> Tensor:
    """R_l2 of eq. 3 as in the published ImageNet code: the mean of the images' own Euclidean norms.

    Args:
        images: [N,C,H,W].
    """
    norms: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return norms.mean()
