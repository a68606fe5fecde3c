"""The localization network: convolutions, global average pooling, class scores."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tagseg.errors import ConfigError
from tagseg.nets.backbone import Backbone

__all__ = ["GapClassifier"]


class GapClassifier(nn.Module):
    """Multi-label classifier whose scores are means of class maps (Saleh et al., 3.1.2, 4.2.2).

    fc6 and fc7 of the ImageNet network give way to randomly initialised convolutions; their last
    activations f_k are averaged over positions and weighted per class. The paper sums over
    positions (F^k) and calls it an average; here it is the mean, so that scores do not depend on
    the photo's size.

    Args:
        backbone: the pre-trained network.
        n_classes: C, foreground classes.
        hidden: channels of the new convolutions (Oh et al.: 1024).
        hidden_layers: how many (the paper's two); 0 puts the scores right on the backbone.
        kernel: their odd kernel size.
        dropout: probability after each of them, in training.
        bias: adds a constant per class to the scores; Eq. 1 has none.

    Raises:
        ConfigError: if a number cannot be meant.
    """

    def __init__(
        self,
        backbone: Backbone,
        n_classes: int,
        hidden: int = 1024,
        hidden_layers: int = 2,
        kernel: int = 3,
        dropout: float = 0.5,
        bias: bool = False,
    ) -> None:
        super().__init__()
        if n_classes < 1:
            raise ConfigError(f"a classifier of {n_classes} classes", do="give at least one class")
        if hidden < 1 or hidden_layers < 0:
            raise ConfigError(
                f"{hidden_layers} hidden layers of {hidden} channels", do="raise them"
            )
        if kernel < 1 or kernel % 2 == 0:
            raise ConfigError(
                f"a kernel of {kernel}", do="use an odd kernel, so that maps keep place"
            )
        self.backbone = backbone
        layers: list[nn.Module] = []
        channels = backbone.out_channels
        for _ in range(hidden_layers):
            convolution = nn.Conv2d(channels, hidden, kernel, padding=kernel // 2)
            nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
            nn.init.zeros_(convolution.bias)  # type: ignore[arg-type]
            layers += [convolution, nn.ReLU(), nn.Dropout(dropout)]
            channels = hidden
        self.hidden = nn.Sequential(*layers)
        self.scores = nn.Linear(channels, n_classes, bias=bias)
        nn.init.normal_(self.scores.weight, std=0.01)
        if bias:
            nn.init.zeros_(self.scores.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Class scores S_c before the sigmoid, (B, C), for RGB in [0, 1], (B, 3, H, W)."""
        return self.scores(self.hidden(self.backbone(x)).mean((2, 3)))

    def class_maps(self, x: Tensor) -> Tensor:
        """Class activation maps M_c = sum_k w_k^c f_k (Eq. 1), (B, C, h, w), any sign.

        Without a bias their mean over positions is the score of the class.
        """
        return F.conv2d(self.hidden(self.backbone(x)), self.scores.weight[:, :, None, None])

    def parameter_groups(self) -> list[dict[str, object]]:
        """``backbone`` and ``head`` parameters, for a learning rate each."""
        head = [*self.hidden.parameters(), *self.scores.parameters()]
        return [
            {"name": "backbone", "params": list(self.backbone.parameters())},
            {"name": "head", "params": head},
        ]
