"""Measure how far an image, or a set of images, is from the unguarded one. Pure arithmetic on arrays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

_EPSILON = 1e-10


def rmse255(image: ArrayLike, reference: ArrayLike) -> float:
    """Return the root mean squared difference of pixels, 0 to 255.

    Args:
        image: 8-bit pixels of any shape.
        reference: 8-bit pixels of the same shape.

    >>> rmse255([[0, 10]], [[0, 0]]) ** 2
    50.00000000000001
    """
    difference = np.asarray(image, float) - np.asarray(reference, float)
    return float(np.sqrt(np.square(difference).mean()))


def feature_distance(features: NDArray[Any], reference: NDArray[Any]) -> float:
    """Return the mean squared difference of features, normalised per place, as in LPIPS (Zhang et al. 2018, eq. 1).

    Args:
        features: features of the image, [channels, places].
        reference: features of the reference, [channels, places].
    """
    unit = [maps / (np.linalg.norm(maps, axis=0, keepdims=True) + _EPSILON) for maps in (features, reference)]
    return float(np.square(unit[0] - unit[1]).sum(0).mean())


def frechet(features: ArrayLike, reference: ArrayLike) -> float:
    """Return the Fréchet distance |m − n|² + tr(C + D − 2(CD)^½) of two sets of features (Heusel et al. 2017).

    Args:
        features: features of the images, [images, channels], at least two images.
        reference: features of the reference images, [images, channels]; their number may differ.
    """
    x, y = np.asarray(features, float), np.asarray(reference, float)
    first, second = np.atleast_2d(np.cov(x, rowvar=False)), np.atleast_2d(np.cov(y, rowvar=False))
    root = _root(first)
    # CD has the eigenvalues of the symmetric C^½ D C^½, which are real whatever the rank.
    mixed = np.sqrt(np.clip(np.linalg.eigvalsh(root @ second @ root), 0, None)).sum()
    distance = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(first) + np.trace(second) - 2 * mixed
    return max(0.0, float(distance))


def _root(matrix: NDArray[Any]) -> NDArray[Any]:
    """Return the square root of a symmetric positive semidefinite matrix."""
    values, vectors = np.linalg.eigh(matrix)
    return np.asarray((vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T)
