"""Where a transformer looks: attention rollout, and the relevance of attention to a class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tagseg.errors import ConfigError, ShapeError
from tagseg.localize.grad_cam import ClassMapsOf, wanted_classes
from tagseg.localize.networks import private_copy
from tagseg.nets.backbone import Backbone

__all__ = [
    "AttentionRelevance",
    "attention_relevance",
    "attention_rollout",
    "rollout_saliency",
    "token_map",
]

_RESIDUAL = 0.5  # Abnar and Zuidema: attention and the identity count alike


def attention_rollout(attentions: Sequence[Tensor]) -> Tensor:
    """How much of each input token is in each output token (Abnar and Zuidema, ACL 2020).

    Each layer mixes tokens by 0.5 A + 0.5 I, where A is the mean over heads of its attention and I
    stands for the residual connection; layers multiply, the last one from the left. It knows no
    classes.

    Args:
        attentions: Floats (B, heads, T, T) of each layer, the first one first; rows sum to 1.

    Returns:
        Floats (B, T, T); row i is of output token i.

    Raises:
        ShapeError: The attentions are no such matrices, or there are none.

    Examples:
        >>> import torch
        >>> from tagseg.localize import attention_rollout
        >>> layer = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])  # one photo, one head
        >>> attention_rollout([layer, layer])[0].tolist()
        [[0.375, 0.625], [0.3125, 0.6875]]
    """
    eye = _identity(attentions)
    rolled = eye.expand(len(attentions[0]), -1, -1)
    for attention in attentions:
        mixing = _RESIDUAL * attention.mean(1) + (1 - _RESIDUAL) * eye
        rolled = mixing @ rolled
    return rolled


def attention_relevance(attentions: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """How much each input token speaks for a class, as seen from each output token.

    Chefer et al. (Generic Attention-Model Explainability, ICCV 2021) make the rollout class
    specific: R starts as the identity, and each layer adds A' R, where A' is the mean over heads of
    the positive part of attention times the gradient of the class score (Eqs. 5 and 6).

    Args:
        attentions: Floats (B, heads, T, T) of each layer, the first one first.
        gradients: Of the score of a class by each of them, of the same shapes.

    Returns:
        Floats (B, T, T), R with the identity that it starts as.

    Raises:
        ShapeError: The attentions are no such matrices, or the gradients have other shapes.

    Examples:
        >>> import torch
        >>> from tagseg.localize import attention_relevance
        >>> layer = torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])  # one photo, one head
        >>> gradient = torch.tensor([[[[1.0, 2.0], [-1.0, 1.0]]]])
        >>> attention_relevance([layer], [gradient])[0].tolist()
        [[1.0, 2.0], [0.0, 1.5]]
    """
    eye = _identity(attentions)
    if [a.shape for a in attentions] != [g.shape for g in gradients]:
        raise ShapeError("gradients are of other shapes", do="give one for each attention")
    relevance = eye.expand(len(attentions[0]), -1, -1)
    for attention, gradient in zip(attentions, gradients, strict=True):
        positive = (gradient * attention).clamp(min=0).mean(1)
        relevance = relevance + positive @ relevance
    return relevance


def token_map(matrix: Tensor, grid: tuple[int, int], *, query: int | None = None) -> Tensor:
    """What a matrix of tokens says of each patch.

    Args:
        matrix: Floats (B, T, T), as of :func:`attention_rollout`. The last h * w tokens are the
            patches, in rows; class and register tokens before them are dropped.
        grid: h and w.
        query: The row that is read, such as 0 for a class token. None is the mean over the rows of
            patches: of networks that average patches, or have no class token (SigLIP).

    Returns:
        Floats (B, h, w).

    Raises:
        ShapeError: The matrix is not (B, T, T) of h * w tokens or more, or has no row ``query``.

    Examples:
        >>> import torch
        >>> from tagseg.localize import token_map
        >>> matrix = torch.tensor([[[0.5, 0.2, 0.3], [0.1, 0.9, 0.0], [0.0, 0.3, 0.7]]])
        >>> token_map(matrix, (1, 2), query=0)[0].tolist()  # of a class token before two patches
        [[0.20000000298023224, 0.30000001192092896]]
        >>> token_map(matrix, (1, 2))[0].tolist()
        [[0.6000000238418579, 0.3499999940395355]]
    """
    patches = grid[0] * grid[1]
    square = matrix.ndim == 3 and matrix.shape[1] == matrix.shape[2] >= patches > 0
    if not square or (query is not None and not 0 <= query < matrix.shape[1]):
        raise ShapeError(
            f"matrix is {tuple(matrix.shape)} for {grid[0]} x {grid[1]} patches"
            + ("" if query is None else f" and row {query}"),
            do="give (B, T, T) with the patches last",
        )
    rows = matrix[:, -patches:].mean(1) if query is None else matrix[:, query]
    return rows[:, -patches:].unflatten(1, grid)


@torch.no_grad()
def rollout_saliency(backbone: Backbone, image_batch: Tensor) -> Tensor:
    """Attention rollout of photos: what their patches are made of, whatever the classes.

    The mean over the rows of patches (:func:`token_map`), which all transformers have.

    Args:
        backbone: A transformer in evaluation mode. Its attention is "eager" meanwhile, so threads
            must not share it.
        image_batch: Floats (B, 3, H, W), RGB in [0, 1].

    Returns:
        Floats (B, h, w), of positive values that sum to 1 at most.

    Raises:
        ConfigError: The backbone is no transformer.

    Examples:
        >>> import torch
        >>> from tagseg.localize import rollout_saliency
        >>> from tagseg.nets.tiny import Tiny
        >>> rollout_saliency(Tiny().eval(), torch.rand(1, 3, 32, 32))
        Traceback (most recent call last):
        ...
        tagseg.errors.ConfigError: the backbone tiny has no attentions; use a transformer, hf:FOLDER
    """
    maps = []
    for photo in image_batch.split(1):  # as memory grows with the square of the patches
        with backbone.recorded_attentions() as attentions:
            features = backbone(photo)
        grid = (features.shape[2], features.shape[3])
        maps.append(token_map(attention_rollout(attentions), grid))
    return torch.cat(maps)


class AttentionRelevance:
    """Class maps of a tag classifier on a transformer, by the relevance of its attentions.

    :func:`attention_relevance` of the class score, without the identity that it starts as (which
    is taken off before their Eqs. 8 and 9 as well), and the mean over the rows of patches, as the
    classifier averages patches and no class token is in its score. Not for several threads.

    Args:
        classifier: In evaluation mode, with a ``backbone`` that is a transformer; it gives class
            scores (B, C) for RGB in [0, 1], (B, 3, H, W). It is not touched: what runs is a copy of
            its structure that shares its weights.

    Raises:
        ConfigError: The classifier is in training mode, or its backbone is no transformer.

    Examples:
        >>> from tagseg.localize import AttentionRelevance
        >>> from tagseg.nets.gap import GapClassifier
        >>> from tagseg.nets.tiny import Tiny
        >>> AttentionRelevance(GapClassifier(Tiny(), 3, hidden=8).eval())
        Traceback (most recent call last):
        ...
        tagseg.errors.ConfigError: the backbone tiny has no attentions; use a transformer, hf:FOLDER
    """

    def __init__(self, classifier: nn.Module) -> None:
        if any(module.training for module in classifier.modules()):
            raise ConfigError("the network is in training mode", do="call its eval() before")
        self._net = private_copy(classifier, torch.float32, memory_format=torch.contiguous_format)
        self._backbone: Backbone = self._net.backbone  # type: ignore[assignment]
        self._backbone.recorded_attentions()  # refuses what is no transformer

    def of(self, wanted: Tensor | None) -> ClassMapsOf:
        """Maps over their maximum, as ``class_activation_maps`` averages views of them."""
        return ClassMapsOf(self.class_maps, wanted)

    def class_maps(self, x: Tensor, wanted: Tensor | None = None) -> Tensor:
        """Relevance (B, C, h, w), 0 or more, for photos (B, 3, H, W).

        ``wanted`` (B, C) is True for the classes to look at in each photo; maps of others are 0.

        Raises:
            ShapeError: ``wanted`` is of another shape.
        """
        rows = [None] * len(x) if wanted is None else wanted.split(1)
        if len(rows) != len(x):
            raise ShapeError(f"wanted has {len(rows)} rows for {len(x)} photos", do="give (B, C)")
        with torch.inference_mode(False), torch.enable_grad():
            maps = [
                self._of_photo(photo.detach().clone(), row)
                for photo, row in zip(x.split(1), rows, strict=True)
            ]
        return torch.cat(maps)

    def _of_photo(self, photo: Tensor, wanted: Tensor | None) -> Tensor:
        """Maps (1, C, h, w) of one photo: attentions of several would take too much memory."""
        photo.requires_grad_()  # the weights of the copy have no graph
        with self._backbone.recorded_attentions() as attentions:
            scores: Tensor = self._net(photo)
        asked = wanted_classes(scores, wanted)
        stride = self._backbone.output_stride
        grid = (-(-photo.shape[2] // stride), -(-photo.shape[3] // stride))
        maps = photo.new_zeros((*scores.shape, *grid))
        fixed = [_at_least_single(attention.detach()) for attention in attentions]
        for c in asked[0].nonzero().flatten().tolist():
            found = torch.autograd.grad(scores[0, c], attentions, retain_graph=True)
            relevance = attention_relevance(fixed, [_at_least_single(g) for g in found])
            maps[:, c] = token_map(relevance - _identity(fixed), grid)
        return maps


def _identity(attentions: Sequence[Tensor]) -> Tensor:
    """I (T, T), if the attentions are of T tokens each."""
    shapes = {tuple(attention.shape[:1] + attention.shape[2:]) for attention in attentions}
    if len(shapes) != 1 or any(a.ndim != 4 or a.shape[2] != a.shape[3] for a in attentions):
        raise ShapeError(
            f"attentions are {[tuple(a.shape) for a in attentions]}", do="give (B, heads, T, T)"
        )
    first = attentions[0]
    return torch.eye(first.shape[2], dtype=first.dtype, device=first.device)


def _at_least_single(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
