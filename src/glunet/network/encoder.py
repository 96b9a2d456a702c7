"""The encoder: VGG-16's convolutions up to the fourth pooling, as a pyramid (paper section 3.4, SPEC 3)."""

from collections.abc import Iterable

from torch import Tensor, nn

# Channels of the 3x3 convolutions of each level. Level 0 ends after its ReLU, the others after a 2x2 max pooling, so
# that level L has stride 2**L. VGG's two convolutions of its first block are split over levels 0 and 1.
LEVELS = ((64,), (64,), (128, 128), (256, 256, 256), (512, 512, 512))


class VGG16Pyramid(nn.Module):
    """VGG-16 (Simonyan and Zisserman 2014) without its fifth block: features at strides 1, 2, 4, 8, 16."""

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for level, widths in enumerate(LEVELS):
            layers: list[nn.Module] = []
            for width in widths:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            if level > 0:
                layers.append(nn.MaxPool2d(2))
            self.add_module(f"level_{level}", nn.Sequential(*layers))

    def forward(self, image: Tensor, levels: Iterable[int]) -> dict[int, Tensor]:
        """Features of the asked levels.

        Args:
            image: B x 3 x H x W, RGB, normalised by ImageNet's mean and standard deviation.
            levels: which of 0..4 to return; nothing deeper than the deepest is computed.

        Returns:
            level -> B x C x H/2**level x W/2**level with C = 64, 64, 128, 256, 512.
        """
        wanted = set(levels)
        features = {}
        for level in range(max(wanted) + 1):
            image = self.get_submodule(f"level_{level}")(image)
            if level in wanted:
                features[level] = image
        return features
