"""Which tags of photos are probably wrong, by a probe that has not seen the photo's own tags.

A classifier that was trained on wrong tags may have learned them by heart, so its own scores say
little of them. Here a linear probe on features that no tag has touched is fitted to some of the
photos and asked about the others (cross-fitting: Chernozhukov et al., Econometrics Journal 2018;
Northcutt, Jiang and Chuang, Confident Learning, JAIR 2021, section 3, ask so too).
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError

__all__ = ["CrossFitted", "Probe", "cross_fitted", "error_confidence", "presence"]

Float64 = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]
Errors = Literal["missing", "any"]

_FOLDS = 5
_FEWEST = 20  # photos; of fewer nothing is said
_STRENGTH = 0.01  # C of the logistic regression on standardised features
_ITERATIONS = 300
_LEAST = 1e-6  # of a probability
_LEAST_APART = 0.05  # of the mean probabilities of what is tagged and of what is not
_MOST = 1 - 1e-3  # of the share of what is there that is tagged


class Probe(NamedTuple):
    """A linear classifier of each class: ``features @ weights.T + bias`` is the log-odds.

    Attributes:
        weights: (C, D), of features as they are.
        bias: (C,).
    """

    weights: Float64
    bias: Float64

    def probabilities(self, features: npt.NDArray[np.floating]) -> Float64:
        """Of features (N, D): (N, C)."""
        odds = np.clip(features @ self.weights.T + self.bias, -50, 50)
        return np.asarray(1 / (1 + np.exp(-odds)), np.float64)


@dataclass(frozen=True, eq=False)
class CrossFitted:
    """What probes say of photos that they have not learned from.

    Attributes:
        probabilities: (N, C), that a photo is tagged with a class.
        fold: (N,), which of the probes has not seen a photo.
        probes: a fold each.
    """

    probabilities: Float64
    fold: npt.NDArray[np.intp]
    probes: tuple[Probe, ...]


def cross_fitted(
    features: npt.NDArray[np.floating], tags: Bools, counted: Bools, *, seed: int = 0
) -> CrossFitted | None:
    """Probabilities of tags by logistic regressions on four fifths of the photos at a time.

    Args:
        features: (N, D), of networks that have not seen these tags.
        tags: (N, C).
        counted: (N, C), False where nothing is known: not learned from.
        seed: of the folds.

    Returns:
        None where under 20 photos are counted, of which nothing can be said.

    Raises:
        ShapeError: the arrays do not fit.
    """
    if features.ndim != 2 or len(features) != len(tags) or tags.shape != counted.shape:
        raise ShapeError(
            f"features {features.shape}, tags {tags.shape}, counted {counted.shape} do not fit",
            do="give (N, D), (N, C) and (N, C)",
        )
    if np.count_nonzero(counted.any(1)) < _FEWEST:
        return None
    order = np.random.default_rng(seed).permutation(len(features))
    fold = np.empty(len(features), np.intp)
    fold[order] = np.arange(len(features)) % _FOLDS
    found, probes = np.zeros(tags.shape), []
    for number in range(_FOLDS):
        rest, own = fold != number, fold == number
        probe = _fitted(features[rest], tags[rest], counted[rest])
        found[own] = probe.probabilities(features[own])
        probes.append(probe)
    return CrossFitted(found, fold, tuple(probes))


def _fitted(features: npt.NDArray[np.floating], tags: Bools, counted: Bools) -> Probe:
    mean, spread = features.mean(0), features.std(0)
    scale = np.where(spread > 0, spread, 1.0)
    standard = (features - mean) / scale
    rows = [_of_class(standard[c], t[c]) for t, c in zip(tags.T, counted.T, strict=True)]
    weights = np.stack([row[0] for row in rows]) / scale
    return Probe(weights, np.array([row[1] for row in rows]) - weights @ mean)


def _of_class(features: npt.NDArray[np.floating], tagged: Bools) -> tuple[Float64, float]:
    """Weights and bias; of a class that all photos have, or none, the bias alone."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression  # takes a second to import

    if not len(tagged) or tagged.all() or not tagged.any():
        share = (np.count_nonzero(tagged) + 0.5) / (len(tagged) + 1)
        return np.zeros(features.shape[1]), float(np.log(share / (1 - share)))
    with warnings.catch_warnings():  # as far as it has come it tells the classes apart
        warnings.simplefilter("ignore", ConvergenceWarning)
        model = LogisticRegression(C=_STRENGTH, max_iter=_ITERATIONS).fit(features, tagged)
    return model.coef_[0].astype(np.float64), float(model.intercept_[0])


def error_confidence(
    probabilities: Float64, tags: Bools, counted: Bools, errors: Errors
) -> npt.NDArray[np.float32]:
    """How sure it is that what is said of a photo and a class is wrong, 0 to 1 (N, C).

    Both use the mean probability of what is tagged, as confident learning's thresholds are
    (Northcutt et al. 2021, Eq. 2), of all classes together: of one class there may be ten photos.

    ``missing``: what is tagged is right, but of what is there a fraction c is tagged, c being that
    mean. Then the probability that a class is there although it is not tagged is (1 - c) / c times
    the odds of its tag (Elkan and Noto, Learning Classifiers from Only Positive and Unlabeled Data,
    KDD 2008, section 2, Eq. 3).

    ``any``: what is there is tagged with probability t, what is not with probability f, the means
    of what is tagged and of what is not. Then a class is there with probability (p - f) / (t - f)
    (class-conditional noise: Natarajan, Dhillon, Ravikumar and Tewari, NeurIPS 2013).

    As the means are estimates, either may come out over 1. Values r over a half become 1 - 1 / (4
    r), which keeps their order.

    Args:
        probabilities: of :func:`cross_fitted`, that a class is tagged.
        tags: (N, C).
        counted: (N, C), of which pairs it is asked; 0 elsewhere.

    Examples:
        A third photo looks like the other two, which have the tag.

        >>> import numpy as np
        >>> from tagseg.evaluate.wrong_tags import error_confidence
        >>> tags = np.array([[True], [True], [False], [False]])
        >>> seen = np.array([[0.7], [0.7], [0.7], [0.1]])
        >>> found = error_confidence(seen, tags, np.ones_like(tags), "missing")
        >>> [round(float(value), 2) for value in found[:, 0]]
        [0.0, 0.0, 0.75, 0.05]
    """
    tagged, others = tags & counted, ~tags & counted
    if not tagged.any() or not others.any():
        return np.zeros(tags.shape, np.float32)
    p = np.clip(probabilities, _LEAST, 1 - _LEAST)
    if errors == "missing":
        share = min(float(p[tagged].mean()), _MOST)
        found = np.where(others, (1 - share) / share * p / (1 - p), 0.0)
    else:
        likely = _likely(p, tagged, others)
        found = np.where(tags, 1 - likely, likely) * counted
    return _below_one(found).astype(np.float32)


def _below_one(ratio: Float64) -> Float64:
    """Up to a half as it is, and from there towards 1, without a bend."""
    return np.where(ratio > 0.5, 1 - 0.25 / ratio.clip(0.5), ratio.clip(0))


def presence(probabilities: Float64, tags: Bools, counted: Bools) -> npt.NDArray[np.float32]:
    """How likely a class is in a photo whatever is said of it, 0 to 1 (N, C).

    By the mean probabilities of what is tagged and of what is not, as for ``any`` in
    :func:`error_confidence`.
    """
    tagged, others = tags & counted, ~tags & counted
    if not tagged.any() or not others.any():
        return np.zeros(tags.shape, np.float32)
    return _below_one(_likely(probabilities, tagged, others)).astype(np.float32)


def _likely(probabilities: Float64, tagged: Bools, others: Bools) -> Float64:
    """(p - f) / (t - f), which may lie outside of 0 to 1."""
    there, rest = float(probabilities[tagged].mean()), float(probabilities[others].mean())
    return (probabilities - rest) / max(there - rest, _LEAST_APART)
