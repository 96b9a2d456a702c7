"""From images to a match: everything around the network that knows of files, sizes and units."""

import logging
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glunet import flipping as mirror
from glunet import frames
from glunet.errors import GlunetError
from glunet.flow.geometry import frame_flow_to_source
from glunet.images import ImageLike, grey_levels, image_size, load_image
from glunet.match import Match, Provenance
from glunet.memory import available_bytes, human, needed_bytes
from glunet.network.family import Network
from glunet.network.glunet import LNET_SIZE

logger = logging.getLogger(__name__)

_LNET = (LNET_SIZE, LNET_SIZE)


class Matcher:
    """A network with its weights, ready to match images. `glunet.load()` makes one.

    Attributes:
        network: in evaluation mode; where its parameters are is where the matcher computes.
        provenance: what every match made here says of its origin.
        uint8_truncation: cut resized grey levels to whole numbers, as the first public implementation does.
        iterative_refinement: extra levels between L-Net and H-Net where the target is large (1088 px and more).
        flipping: each pair is tried with the target mirrored as well (`glunet.flipping`): for two objects of one kind.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        sha256: str = "",
        uint8_truncation: bool = False,
        iterative_refinement: bool = True,
        device: torch.device | str | None = None,
        flipping: bool = False,
    ) -> None:
        """`device` moves the network; None leaves it where it is.

        Raises:
            GlunetError: `flipping` with a network that has no global level.
        """
        if flipping and network.config.network == "local-net":
            raise GlunetError("local-net has no global level to tell mirrored pairs by: match without flipping.")
        self.network = network.eval() if device is None else network.to(device).eval()
        self.uint8_truncation = uint8_truncation
        self.framing = frames.FRAMINGS[network.config.network]
        self.iterative_refinement = iterative_refinement and self.framing.lnet
        self.flipping = flipping
        settings: dict[str, Any] = {
            "uint8_truncation": uint8_truncation,
            "iterative_refinement": self.iterative_refinement,
        }
        if flipping:
            settings["flipping"] = True
        self.provenance = Provenance(name, sha256, settings)

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        return next(self.network.parameters()).device

    def match(self, source: ImageLike, target: ImageLike) -> Match:
        """For every pixel of the target, where it is in the source.

        Args:
            source, target: a path, a Pillow image, an array H x W (x 1, 3 or 4) or a tensor 1, 3 or 4 x H x W, RGB, as
                uint8, uint16 or floats in 0..1, at least 32 pixels a side. Their sizes may differ.

        Raises:
            GlunetError: an image that cannot be used, or a pair that is too large for the memory there is.
        """
        self._check_memory(image_size(source, "source"), image_size(target, "target"))
        source_pixels, target_pixels = load_image(source, "source")[None], load_image(target, "target")[None]
        flow = self._flow(source_pixels.to(self.device), target_pixels.to(self.device))
        array = np.ascontiguousarray(flow[0].permute(1, 2, 0).cpu().numpy())
        height, width = source_pixels.shape[-2:]
        return Match(array, (height, width), self.provenance)

    def flow(self, source: Tensor, target: Tensor) -> Tensor:
        """The flow of a batch of pairs; nothing leaves the device.

        Args:
            source: B x 3 x H_source x W_source on the matcher's device, RGB, uint8, uint16 or floats in 0..1.
            target: B x 3 x H x W, likewise.

        Returns:
            B x 2 x H x W float32: on the target's grid, in pixels of the source.

        Raises:
            GlunetError: tensors of another shape, type, range or device, or too large for the memory there is.
        """
        for name, images in (("source batch", source), ("target batch", target)):
            if not isinstance(images, Tensor) or images.ndim != 4:
                what = f"{images.ndim}-dimensional tensor" if isinstance(images, Tensor) else type(images).__name__
                raise GlunetError(f"The {name} should be a tensor of B x 3 x H x W, but a {what} came: pass a batch.")
            if images.device.type != self.device.type:
                raise GlunetError(
                    f"The {name} is on {images.device}, but the matcher computes on {self.device}: move it."
                )
        if len(source) != len(target):
            raise GlunetError(f"{len(source)} sources and {len(target)} targets came, but pairs are expected.")
        self._check_memory(image_size(source), image_size(target), pairs=len(target))
        return self._flow(grey_levels(source, "source batch"), grey_levels(target, "target batch"))

    @torch.inference_mode()
    def _flow(self, source: Tensor, target: Tensor) -> Tensor:
        """B x 3 x H x W in 0..255, on the device -> B x 2 x H x W."""
        source_size, target_size = image_size(source), image_size(target)
        frame = self.framing.size(*target_size)
        extra = frames.extra_levels(*target_size) if self.iterative_refinement else 0
        logger.debug("target %s, source %s, frame %s, %d extra levels", target_size, source_size, frame, extra)
        try:
            if self.flipping:
                flipped = mirror.mirrored(
                    self.network, self._prepare(target, _LNET)[0], self._prepare(source, _LNET)[0]
                )
                target = mirror.mirror_where(target, flipped)
            network: Any = self.network  # each has features of its own kind
            features = [network.encode(*self._prepare(images, frame)) for images in (target, source)]
            last = network.decode(*features, extra)[-1]
            flow = frame_flow_to_source(frames.finish(last, target_size, frame), source_size)
            return mirror.unmirror_flow(flow, flipped) if self.flipping else flow
        except torch.OutOfMemoryError as error:
            raise _too_large(source_size, target_size, len(target), "no more", self.device) from error
        except RuntimeError as error:
            if "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
                raise
            raise _too_large(source_size, target_size, len(target), "no more", self.device) from error

    def _prepare(self, images: Tensor, frame: tuple[int, int]) -> tuple[Tensor, ...]:
        return frames.prepare(images, frame, self.uint8_truncation, self.framing.lnet)

    def _check_memory(self, source_size: tuple[int, int], target_size: tuple[int, int], pairs: int = 1) -> None:
        available = available_bytes(self.device)
        if available is not None and needed_bytes(source_size, target_size, pairs, self.device) > available:
            raise _too_large(source_size, target_size, pairs, human(available), self.device)


def _too_large(
    source_size: tuple[int, int], target_size: tuple[int, int], pairs: int, available: str, device: torch.device
) -> GlunetError:
    (source_height, source_width), (height, width) = source_size, target_size
    what = f"{pairs} pairs of a target" if pairs > 1 else "A target"
    needed = human(needed_bytes(source_size, target_size, pairs, device))
    return GlunetError(
        f"{what} of {width} x {height} and a source of {source_width} x {source_height} pixels need about {needed} of "
        f"memory, but {available} is available on {device}: make the images smaller, above all the target."
    )
