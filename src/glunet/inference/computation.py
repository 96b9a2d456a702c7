"""What a matcher computes: from the pixels of pairs to their flow, with a twin of the network made for inference."""

import copy
import logging
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from glunet.flow.geometry import Size, frame_flow_to_source, scale_flow
from glunet.inference import frames, memory, speed, tiles
from glunet.inference.encoded import Encoded, together
from glunet.inference.flipping import mirror_where, mirrored
from glunet.inference.settings import Settings
from glunet.network.anchor import anchored
from glunet.network.family import Network
from glunet.network.glunet import LNET_SIZE, Coarse
from glunet.network.uncertainty import Mixture

logger = logging.getLogger(__name__)

_LNET = (LNET_SIZE, LNET_SIZE)
_WORTH = 400 * 400  # pixels of a frame from which on giving memory back costs less than 3 % of the time
Pair = Callable[[Size], list[Any]]


class Computation:
    """Features and flows of batches of pairs of equal sizes; all sizes are (height, width).

    Attributes:
        config: the network's.
        identity: equal for what computes with the same network.
        settings: of the matcher; its speed "exact" or "fast".
        framing: what the network sees of a pair.
    """

    def __init__(
        self,
        network: Network,
        settings: Settings,
        again: Callable[[], Network] | None = None,
    ) -> None:
        """`again` makes the same network once more; with it, the network is let go when its twin is made."""
        self.config, self.settings = network.config, settings
        self.identity: object = id(network) if again is None else object()
        self._network: Network | None = network
        self._again = again
        self.framing = frames.FRAMINGS[self.config.network]
        self._inference: Network | None = None
        self._made_of: object = None

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are."""
        network: Any = self._network or self._inference
        return next(network.parameters()).device

    @property
    def network(self) -> Network:
        """The trainable network; who has asked for it may write to it, and it stays."""
        network, again = self._network, self._again
        if network is None and again is not None:
            self._network = network = again()
        self._again = None
        if network is None:  # another thread has just set it
            return self.network
        return network

    @property
    def inference(self) -> Network:
        """The network's twin that computes: made when it is first needed, and again when the network has changed."""
        network = self._network
        if self._inference is None or (network is not None and self._made_of != speed.state_of(network)):
            network = network or self.network
            self._inference = speed.for_inference(network, self.settings.speed)
            self._made_of = speed.state_of(network)
            if self._again is not None:  # nobody has seen it, and nobody can change it
                self._network = network = None
                memory.give_back()
        return self._inference

    def with_encoder(self, encoder: nn.Module) -> "Computation":
        """The same with another encoder in the twin, until the network changes."""
        self.network  # noqa: B018 - which is that of both from now on
        changed = copy.copy(self)
        inference: Any = copy.copy(self.inference)
        inference._modules = {**inference._modules, "encoder": encoder}
        changed._inference = inference
        return changed

    def prepare(self, images: Tensor, frame: Size) -> tuple[Tensor, ...]:
        """B x 3 x H x W in 0..255 -> what the network's `encode` takes."""
        smooth = self.settings.enlarge_to > 0
        seen = frames.prepare(images, frame, self.settings.uint8_truncation, self.framing.lnet, smooth)
        return (*seen, seen[1].flip(-1)) if self.settings.ensemble else seen

    def encode(self, images: Tensor, frame: Size, before: Any = None, ensemble: bool = True) -> Any:
        """The features of images, B x 3 x H x W in 0..255, in this frame; of the network's own kind.

        Args:
            before: their features in another frame, from which those of the L-Net's copy are taken.
            ensemble: False leaves out those of the mirrored copy, whatever the settings say.
        """
        network: Any = self.inference
        with speed.full_precision(self.device, self.settings.speed):
            inputs = self.prepare(images, frame)
            if before is None:
                return network.encode(*inputs if ensemble else inputs[:2])
            level2, level1 = network.encode_high(inputs[0])
            return before._replace(level2=level2, level1=level1)

    def features(self, images: list[Encoded], frame: Size, tile: int | None = None) -> Any:
        """The features of images of one size, as a batch; those not known yet are encoded in one."""
        network: Any = self.inference
        new = list({id(image): image for image in images if not image.knows(frame)}.values())
        if tile is not None and tile < max(frame):
            with speed.full_precision(self.device, self.settings.speed):
                for image in new:
                    image.keep(frame, tiles.encode(network, tile, *self.prepare(image.pixels, frame)))
        elif len(new) > 1:
            batch = self.encode(torch.cat([image.pixels for image in new]), frame)
            for i, image in enumerate(new):
                image.keep(frame, type(batch)(*(level[i : i + 1] for level in batch)))
        with speed.full_precision(self.device, self.settings.speed):
            return together(
                [image.features(network, frame, partial(self.prepare, image.pixels, frame)) for image in images]
            )

    def frame(self, target: Size) -> Size:
        """The frame that a target of this size is matched in, in whose pixels the network's answer is."""
        return self.framing.size(*frames.enlarged(target, self.settings.enlarge_to))

    def frames(self, frame: Size) -> tuple[Size, ...]:
        """The frames to match in, coarse to fine; the last is `frame`, most often alone."""
        return frames.pyramid(*frame) if self.settings.pyramid else (frame,)

    def flow(
        self,
        pair: Pair,
        size: Size,
        other_size: Size,
        frame: Size,
        tile: int | None = None,
        mixture: bool = False,
        known: Coarse | None = None,
    ) -> Tensor:
        """Features -> flow on the grid of `size`, in pixels of the other image: B x 2 x H x W.

        PDC-Net's has its packed mixture (`glunet.network.uncertainty`) as four more channels.

        Args:
            pair: makes the features on the grid of `size`, and the other image's, in a frame, or in several, coarse to
                fine. They are taken out of its list, and the memory of those that nobody else holds is free again
                before the last level is decoded.
            mixture: of a network with an uncertainty head the mixture as well, in pixels of the other image; not in
                tiles.
            known: flow4 and flow3, where they are.
        """
        return self._finish(self._last(pair, frame, tile, mixture, known), size, other_size, frame)

    def flow_both(
        self, pair: Pair, size: Size, other_size: Size, frame: Size, known: Coarse | None = None
    ) -> tuple[Tensor, Tensor]:
        """As `flow`, of batches whose second halves are the first ones the other way round: there and back."""
        forward, backward = self._last(pair, frame, known=known).chunk(2)
        return self._finish(forward, size, other_size, frame), self._finish(backward, other_size, size, frame)

    def mirrored(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The targets, those mirrored that match better so, and which they are (`glunet.inference.flipping`)."""
        with speed.full_precision(self.device, self.settings.speed):
            flipped = mirrored(self.inference, self.prepare(target, _LNET)[0], self.prepare(source, _LNET)[0])
        return mirror_where(target, flipped), flipped

    def lnet(self, image: Encoded) -> tuple[Tensor, ...]:
        """What the network's `encode` takes for the global level alone."""
        return self.prepare(image.pixels, _LNET)

    def _last(
        self, pair: Pair, frame: Size, tile: int | None = None, mixture: bool = False, known: Coarse | None = None
    ) -> Tensor:
        """The network's last flow, in pixels of the frame, and where it is asked for its mixture."""
        coarsest, *finer = self.frames(frame)
        flow, before = self._decoded(pair(coarsest), coarsest, tile, None, mixture, not finer, known), coarsest
        for at in finer:
            flow = scale_flow(flow, at[1] / before[1], at[0] / before[0])
            flow, before = self._decoded(pair(at), at, tile, flow, mixture, at == frame), at
        return flow

    def _decoded(
        self,
        pair: list[Any],
        frame: Size,
        tile: int | None,
        start: Tensor | None,
        mixture: bool,
        last: bool,
        known: Coarse | None = None,
    ) -> Tensor:
        """The last flow in one frame, from level 4 on or, with a flow to start from, of levels 2 and 1 alone.

        Args:
            last: it is the last frame: what the settings want done at the end is, and `mixture` counts.
            known: flow4 and flow3, where they are.
        """
        extra = frames.extra_levels(*frame) if self.settings.iterative_refinement and start is None else 0
        logger.debug("frame %s, %d extra levels%s", frame, extra, "" if start is None else ", from the frame before")
        network: Any = self.inference
        passes = self.settings.first_passes if start is None else self.settings.passes
        again: dict[str, Any] = {"passes": passes} if passes > 1 else {}
        if known is not None:
            again["known"] = known
        if self.settings.speed == "exact" and frame[0] * frame[1] >= _WORTH and self.device.type == "cpu":
            memory.give_back()  # what the encoder let go, a fifth of the peak
        mixture, anchor = mixture and last, self.settings.anchor and last
        seen = tuple(pair) if mixture else ()
        coarse = [image._replace(level2=None, level1=None) for image in pair] if anchor else []
        target, source = pair
        with speed.full_precision(self.device, self.settings.speed):
            if tile is not None and tile < max(frame):
                if start is not None:
                    flow = tiles.fine(network, target, source, start, tile, **again)
                else:
                    flow = tiles.decode(network, target, source, extra, tile, **again)
            else:
                del target, source
                if start is not None:
                    flow = network.fine(pair, start, **again)[1]
                else:
                    flow = network.decode(pair.pop(0), pair.pop(0), extra, **again)[-1]
            if anchor:
                ours, theirs = coarse
                flow = anchored(ours, theirs, network.level4(ours, theirs), flow, frame)
            return torch.cat((flow, network.mixture(*seen, flow).packed()), dim=1) if mixture else flow

    def _finish(self, last: Tensor, size: Size, other_size: Size, frame: Size) -> Tensor:
        flow = frame_flow_to_source(frames.finish(last[:, :2], size, frame), other_size)
        if last.shape[1] == 2:
            return flow
        mixture = Mixture.unpacked(last[:, 2:])
        if self.config.network != "pdc-net":  # whose variances are of its frame, as published
            mixture = mixture.scaled(other_size[1] / frame[1], other_size[0] / frame[0])
        return torch.cat((flow, mixture.resized(size).packed()), dim=1)
