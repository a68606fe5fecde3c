"""A tag classifier is scored by how it ranks photos: average precision and its mean."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from tagseg.errors import ShapeError

__all__ = ["average_precision", "mean_average_precision"]


def average_precision(
    scores: npt.NDArray[np.floating], tags: npt.NDArray[np.bool_]
) -> npt.NDArray[np.float64]:
    """Compute each class's average precision, the area under its precision-recall steps.

    AP = sum_n (R_n - R_{n-1}) P_n over the distinct scores in falling order, without interpolation.

    Args:
        scores: float (N, C), any monotone score of "class c is in photo n" (logits will do).
        tags: bool (N, C), the truth.

    Returns:
        float64 (C,); NaN for a class that no photo has.

    Raises:
        ShapeError: the two do not fit, or a score is NaN or infinite.

    Examples:
        The first class is ranked without a fault; of the second, a wrong photo comes first.

        >>> import numpy as np
        >>> from tagseg.evaluate import average_precision
        >>> scores = np.array([[3.0, 2.0], [2.0, 1.0], [1.0, 0.0]])
        >>> tags = np.array([[True, False], [True, True], [False, False]])
        >>> average_precision(scores, tags).tolist()
        [1.0, 0.5]
    """
    from sklearn.metrics import average_precision_score  # takes a second to import

    if tags.dtype != np.bool_ or tags.ndim != 2 or scores.shape != tags.shape:
        raise ShapeError(
            f"scores {scores.shape} and {tags.dtype} tags {tags.shape} do not fit",
            do="give float scores (N, C) and bool tags (N, C)",
        )
    if not np.isfinite(scores).all():
        raise ShapeError("the scores hold NaN or infinity", do="check what produced them")
    return np.array(
        [
            average_precision_score(tags[:, c], scores[:, c]) if tags[:, c].any() else np.nan
            for c in range(tags.shape[1])
        ],
        dtype=np.float64,
    )


def mean_average_precision(scores: npt.NDArray[np.floating], tags: npt.NDArray[np.bool_]) -> float:
    """Average :func:`average_precision` over the classes that some photo has.

    Args:
        scores: float (N, C), any monotone score of "class c is in photo n" (logits will do).
        tags: bool (N, C), the truth.

    Returns:
        A fraction, 0 to 1; NaN if no photo has a class.

    Raises:
        ShapeError: the two do not fit, or a score is NaN or infinite.

    Examples:
        >>> import numpy as np
        >>> from tagseg.evaluate import mean_average_precision
        >>> scores = np.array([[3.0, 2.0, 0.0], [2.0, 1.0, 0.0]])
        >>> tags = np.array([[True, False, False], [True, True, False]])
        >>> mean_average_precision(scores, tags)
        0.75
    """
    values = average_precision(scores, tags)
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
