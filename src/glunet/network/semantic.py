"""Semantic-GLU-Net (paper section 3.5, SPEC 11.1): for two objects of one kind rather than two views of a scene.

It differs from GLU-Net in the L-Net alone: features of coarser levels are put beside those of levels 4 and 3, and the
global correlation is filtered by neighbourhood consensus instead of mutual matching.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.flow.geometry import resize_area, resize_bilinear
from glunet.network.consensus import NeighbourhoodConsensus
from glunet.network.correlation import global_correlation, l2_normalise
from glunet.network.glunet import Features, GLUNet, GLUNetConfig


class SemanticGLUNet(GLUNet):
    """GLU-Net with neighbourhood consensus; its `Features` have 1024 channels at level 4 and 1280 at level 3."""

    def __init__(self, config: GLUNetConfig | None = None) -> None:
        super().__init__(config or GLUNetConfig(network="semantic-glunet"))
        self.consensus = NeighbourhoodConsensus()

    @property
    def channels4(self) -> int:
        """As `GLUNet.channels4`, the coarser ones counted."""
        return 1024

    def adapt(self, features: Features, high: bool = True) -> Features:
        """With coarser features, enlarged, behind those of levels 4 and 3."""
        level4, level3 = features.level4, features.level3
        height, width = level4.shape[-2:]
        level5 = resize_area(level4, (height // 2, width // 2))
        coarser4 = [resize_bilinear(level5, level4.shape[-2:])]
        coarser3 = [resize_bilinear(level, level3.shape[-2:]) for level in (level4, level5)]
        return features._replace(
            level4=torch.cat((level4, *coarser4), dim=1), level3=torch.cat((level3, *coarser3), dim=1)
        )

    def global_scores(self, target: Features, source: Features) -> Tensor:
        """The global correlation as decoder4 reads it, B x 256 x 16 x 16, float32."""
        with torch.autocast(target.level4.device.type, enabled=False):
            correlation = global_correlation(l2_normalise(target.level4.float()), l2_normalise(source.level4.float()))
            return l2_normalise(F.relu(self.consensus(correlation, source.level4.shape[-2:])))
