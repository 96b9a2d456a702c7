"""The refinement (context) network: dilated convolutions that see far (paper section 3.4, SPEC 4.7)."""

from torch import Tensor, nn

from glunet.network.decoder import ConvBlock, Head

DILATIONS = (1, 2, 4, 8, 16, 1)
WIDTHS = (128, 128, 128, 96, 64, 32)


class Refinement(nn.Module):
    """A correction of a level's flow, from the features of its decoder."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        for i, (width, dilation) in enumerate(zip(WIDTHS, DILATIONS, strict=True), start=1):
            self.add_module(f"conv{i}", ConvBlock(inputs, width, dilation))
            inputs = width
        self.conv7 = Head(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """B x inputs x h x w -> B x 2 x h x w, in pixels of the frame."""
        return self.features_and_flow(x)[1]

    def features_and_flow(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """As `forward`, with the features that the flow is read from before it: B x 32 x h x w."""
        for i in range(1, 7):
            x = self.get_submodule(f"conv{i}")(x)
        return x, self.conv7(x)
