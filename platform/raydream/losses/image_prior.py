"""Image priors: neighboring pixels of natural images are alike, and values are small (eq. 3)."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def _differences(images: Tensor) -> tuple[Tensor, ...]:
    """Return the difference images to the right, down and along both diagonals."""
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
    if torch.compiler.is_compiling():  # which makes one loop of it, and of autograd's gradient
        return _norms(_differences(images)).sum()
    return _TotalVariation.apply(images)  # type: ignore[no-any-return]


def _norms(differences: Iterable[Tensor]) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(difference) for difference in differences])


class _TotalVariation(torch.autograd.Function):
    """R_TV with its gradient written out.

    Autograd would allocate an image of zeros for each of eight slices and sum these: three times the work for a batch
    of CIFAR's size.
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        differences = _differences(images)
        norms = _norms(differences)
        ctx.save_for_backward(images, norms, *differences)
        return norms.sum()

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> Tensor:
        images, norms, *differences = ctx.saved_tensors
        # The gradient of a norm is its vector divided by it. Where all differences are 0, it is taken as 0.
        slopes = torch.where(norms > 0.0, slope / norms, 0.0)
        right, down, diagonal, other = (d * s for d, s in zip(differences, slopes.unbind(), strict=True))
        gradient = torch.zeros_like(images)
        upper, lower = gradient[..., :-1, :], gradient[..., 1:, :]
        for minuend, subtrahend, difference in (
            (gradient[..., 1:], gradient[..., :-1], right),
            (lower, upper, down),
            (lower[..., 1:], upper[..., :-1], diagonal),
            (lower[..., :-1], upper[..., 1:], other),
        ):
            minuend.add_(difference)
            subtrahend.sub_(difference)
        return gradient


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
