"""From images to a match: everything around the network that knows of files, sizes and units."""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from glunet.errors import GlunetError
from glunet.flow.geometry import as_array
from glunet.images.reading import ImageLike, check_batches, depth, grey_levels, image_size
from glunet.inference import many, nearer, tiles
from glunet.inference import passes as networks
from glunet.inference.computation import Computation
from glunet.inference.confidence import Calibration
from glunet.inference.encoded import Encoded, MaskLike, alike, open_image
from glunet.inference.flipping import mirror_where, unmirror_backward, unmirror_flow
from glunet.inference.frames import FRAMINGS
from glunet.inference.hypotheses import PointSource, keypoints
from glunet.inference.likeness import threads
from glunet.inference.memory import available_bytes, human, needed_bytes, out_of_memory_told, too_large
from glunet.inference.nearer import Asked
from glunet.inference.passes import Wish
from glunet.inference.plane import flattened
from glunet.inference.polish import Polish, check_polish, looks_alike, refined
from glunet.inference.search import Found, OneWay, Search, TwoWay, check_search
from glunet.inference.settings import AGAIN, Settings
from glunet.inference.speed import own_state, resolved
from glunet.inference.stages import Ways
from glunet.match import Match, Provenance
from glunet.network.family import Network

logger = logging.getLogger(__name__)


class Matcher:
    """A network with its weights, ready to match images. `glunet.load()` makes one.

    Attributes:
        computation: the network, and the twin of it that is made for inference (`glunet.inference.computation`).
        provenance: what every match made here says of its origin.
        settings: how it matches (`glunet.inference.settings.Settings`), what does not apply to the network left out.
        calibration, learned: what the weights know of their own errors (`glunet.inference.confidence`), by the round
            trip and by the network's uncertainty head; None for those without.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        sha256: str = "",
        settings: Settings | None = None,
        device: torch.device | str | None = None,
        calibration: Calibration | None = None,
        learned: Calibration | None = None,
        points: PointSource | Sequence[PointSource] = (),
        again: Callable[[], Network] | None = None,
        **changed: Any,
    ) -> None:
        """`device` moves the network; None leaves it where it is. `points`: see `glunet.load`.

        Args:
            settings: how to match; the published protocol by default, but for what is in `changed`, by name.
            again: makes the same network once more, on its device: what computes then holds only the twin that is made
                for inference, until `network` is asked for.

        Raises:
            GlunetError: `flipping` with a network that has no global level; as `Settings`.
        """
        settings = replace(settings or Settings(), **changed)
        if settings.flipping and network.config.network == "local-net":
            raise GlunetError("local-net has no global level to tell mirrored pairs by: match without flipping.")
        if settings.stages != "D" and network.config.network != "pdc-net":
            raise GlunetError(
                f"stages={settings.stages!r} is for pdc-net, which says where it is sure: {network.config.network} has "
                "search='auto' for that."
            )
        head = network.has_uncertainty
        if settings.confidence == "learned" and not head and network.config.network != "pdc-net":
            raise GlunetError(
                "confidence='learned' came, but these weights have not learned it: 'roundtrip' is theirs."
            )
        network = network.eval() if device is None else network.to(device).eval()
        plain = Settings(iterative_refinement=False)
        unknown = () if FRAMINGS[network.config.network].again else AGAIN
        self.settings = replace(
            settings,
            speed=resolved(settings.speed, next(network.parameters()).device),
            **{name: getattr(plain, name) for name in unknown},
            confidence="learned" if settings.confidence == "auto" and head and learned else settings.confidence,
        )
        # Whether the network says how sure it is, where it is asked to.
        self._own = head and self.settings.confidence == "learned"
        self.computation = Computation(network, self.settings, again)
        self.points = tuple(points) if isinstance(points, Sequence) else (points,)
        self.calibration, self.learned = calibration, learned
        self.provenance = Provenance(name, sha256, self.settings.as_dict())

    def with_(self, **changed: Any) -> "Matcher":
        """The same network with other settings (`glunet.inference.settings.Settings`), by name; this one stays.

        Raises:
            GlunetError: as `Settings`.
            TypeError: for a setting that there is not.
        """
        made_by, settings = self.provenance, replace(self.settings, **changed)
        if changed.keys() <= {"search", "polish", "plane", "flipping"}:
            twin = copy.copy(self)
            twin.settings, twin.provenance = settings, replace(made_by, settings=settings.as_dict())
            return twin
        return Matcher(
            self.computation.network,
            made_by.weights,
            made_by.sha256,
            settings,
            calibration=self.calibration,
            learned=self.learned,
            points=self.points,
        )

    @property
    def network(self) -> Network:
        """The trainable network, in evaluation mode, as its weights are saved.

        What is written to its tensors counts from the next match on. A matcher that `glunet.load` made reads it again
        when it is first asked for, and keeps it from then on. It computes what a matcher computes that is
        "exact", but not as quickly: `matcher.computation.inference` is its twin for that.

        Raises:
            GlunetError: its file is gone or was exchanged since it was loaded.
        """
        return self.computation.network

    @property
    def device(self) -> torch.device:
        """Where the network's parameters are, and the matcher computes."""
        return self.computation.device

    def match(
        self,
        source: ImageLike | Encoded,
        target: ImageLike | Encoded,
        *,
        confidence: bool = True,
        backward: bool = False,
        source_mask: MaskLike | None = None,
        target_mask: MaskLike | None = None,
        search: Search | None = None,
        polish: Polish | None = None,
        max_memory: int | None = None,
    ) -> Match:
        """For every pixel of the target, where it is in the source.

        Args:
            source, target: a path, a Pillow image, an array H x W (x 1, 3 or 4) or a tensor 1, 3 or 4 x H x W, RGB, as
                uint8, uint16 or floats in 0..1, at least 32 pixels a side. Their sizes may differ. Or what `encode`
                made.
            confidence: tell how far to trust the answer (`Match.confidence`): by what the network says itself where it
                has learned to, else by the way back.
            backward: match in both directions, which tells where each pixel of the source is in the target as well.
            source_mask, target_mask: where the image is valid, H x W: what is black border or "no data" is not matched.
                True, or more than half of the mask's largest value, is valid (`glunet.images.reading.load_mask`).
            search, polish: as for `glunet.load`; None takes what the matcher was made with.
            max_memory: bytes to stay below; by default what there is. A pair that needs more is matched in tiles
                (`glunet.inference.tiles`), with the same result, as long as its features fit.

        Raises:
            GlunetError: an image that cannot be used, or a pair that is too large for the memory there is; another word
                for `search` or `polish`.
        """
        sizes = self.size(source, "source"), self.size(target, "target")
        search = self.settings.search if search is None else check_search(search)
        polish = self.settings.polish if polish is None else check_polish(polish)
        tile = self.tile(*sizes, backward or confidence or search != "none", max_memory)
        pair = alike(self.open(source, source_mask, "source"), self.open(target, target_mask, "target"))
        return self.matches([pair[0]], [pair[1]], confidence, tile, search, polish, backward)[0]

    @own_state()
    @torch.inference_mode()
    def encode(self, image: ImageLike, mask: MaskLike | None = None) -> Encoded:
        """An image to be matched many times: `match` and `match_many` take the result in the image's place.

        Most of the work of a match is in the encoder. A target's features hold for every source. A source's hold for
        targets of its own size (strictly: of the same `frame`); for others only
        those of its 256 x 256 copy are reused, and the rest is computed in the target's frame.

        Args:
            image, mask: as for `match`.

        Raises:
            GlunetError: an image or mask that cannot be used, or one too large for the memory there is.
        """
        size = image_size(image, "given")
        tile = self.tile(size, size)
        encoded = self.open(image, mask, "given")
        whole = self.frame(encoded.size)
        with out_of_memory_told(self.device, size, size, 1, whole):
            for frame in self.computation.frames(whole):
                self.computation.features([encoded], frame, tile)
        return encoded

    def match_many(
        self,
        pairs: Iterable[many.Pair],
        *,
        batch: int = 8,
        confidence: bool = True,
        backward: bool = False,
        search: Search | None = None,
        polish: Polish | None = None,
    ) -> Iterator[many.Outcome[Match]]:
        """Matches one pair after the other: neighbours of equal sizes together, results in order, batch by batch.

        Args:
            pairs: (source, target), each as for `match`. No more than a batch is read ahead, and the pixels of a pair
                are copied before the next one is asked for, so that a generator may give any number of them and use
                its arrays again. Within a batch an image that is in several pairs is encoded once.
            batch: most pairs at once, consecutive and of equal sizes; fewer where memory is short. 1 answers each pair
                before the next one is read.
            confidence, backward, search, polish: as for `match`.

        Yields:
            `glunet.inference.many.Outcome` for each pair: its number and the match, or why there is none: a pair that
            cannot be used is named, and the others go on. If `pairs` itself raises, what was read is answered first.

        Raises:
            GlunetError: if `batch` is not positive; another word for `search` or `polish`.
        """
        search = self.settings.search if search is None else check_search(search)
        polish = self.settings.polish if polish is None else check_polish(polish)

        def matches(sources: list[Encoded], targets: list[Encoded], tile: int | None) -> list[Match]:
            return self.matches(sources, targets, confidence, tile, search, polish, backward)

        return many.match_many(self, pairs, batch, backward or confidence or search != "none", matches)

    def flow(self, source: Tensor, target: Tensor) -> Tensor:
        """The flow of a batch of pairs; nothing leaves the device.

        Args:
            source: B x 3 x H_source x W_source on the matcher's device, RGB, uint8, uint16 or floats in 0..1.
            target: B x 3 x H x W, likewise.

        Returns:
            B x 2 x H x W float32: on the target's grid, in pixels of the source. An ordinary tensor without gradient:
            who wants one through the network calls `matcher.network` (`glunet.network.glunet.GLUNet`) itself.

        Raises:
            GlunetError: tensors of another shape, type, range or device, or too large for the memory there is.
        """
        check_batches(source, target, self.device)
        self._check_memory(image_size(source), image_size(target), pairs=len(target))
        # uint16 of both batches has the same white. What inference mode made, no loss could be put on.
        bits = max(depth(source), depth(target)) if source.dtype == target.dtype == torch.uint16 else None
        with torch.inference_mode(False):
            return self._flow(source, target, bits).clone()

    @staticmethod
    def size(image: ImageLike | Encoded, role: str = "given") -> tuple[int, int]:
        """(height, width) of an image, without decoding it."""
        return image.size if isinstance(image, Encoded) else image_size(image, role)

    def open(self, image: ImageLike | Encoded, mask: MaskLike | None = None, role: str = "given") -> Encoded:
        """The image as `matches` takes it; its features are not computed yet.

        Raises:
            GlunetError: as `match`; what another matcher encoded.
        """
        how = self.settings
        settings = (self.computation.identity, how.speed, how.uint8_truncation, how.enlarge_to > 0)
        if not isinstance(image, Encoded):
            return open_image(image, mask, role, self.device, settings)
        if mask is not None:
            raise GlunetError(f"The {role} is encoded already: give its mask to matcher.encode.")
        if image.settings != settings or image.pixels.device.type != self.device.type:
            raise GlunetError(
                f"The {role} was encoded by another matcher, or in another process: encode it with this one."
            )
        return image

    @own_state()
    @torch.inference_mode()
    def _flow(self, source: Tensor, target: Tensor, bits: int | None = None) -> Tensor:
        """See `flow`."""
        sources, targets = (
            [Encoded(image[None], None, None) for image in grey_levels(batch, f"{name} batch", bits=bits)]
            for batch, name in ((source, "source"), (target, "target"))
        )
        return self._answer(Asked(sources, targets)).flow[:, :2]

    @own_state()
    def matches(
        self,
        sources: list[Encoded],
        targets: list[Encoded],
        confidence: bool,
        tile: int | None = None,
        search: Search | None = None,
        polish: Polish | None = None,
        backward: bool = False,
    ) -> list[Match]:
        """Matches of pairs in one batch: all sources of one size, all targets of one size (`open`).

        Args:
            confidence, backward: as for `match`.
            tile: side of the tiles to match a single pair in; None for the whole at once.
            search, polish: None for the matcher's own.
        """
        search = self.settings.search if search is None else search
        wish = Wish(confidence, backward, tile, search, self.settings.polish if polish is None else polish)
        own = self._own and tile is None
        back_first = search != "none" if not own or self.settings.flipping else search == "full"
        both = backward or back_first or (confidence and not own)
        mixture = own and (confidence or search == "auto")
        ways = self._answer(Asked(sources, targets, both, tile, mixture)).ways()
        if self.settings.stages != "D":
            with threads():
                ways = [
                    networks.staged(self.settings.stages, *pair, lambda s, t: self._answer(Asked([s], [t])).ways()[0])
                    for pair in zip(sources, targets, ways, strict=True)
                ]
        return [self._finished(s, t, way, wish) for s, t, way in zip(sources, targets, ways, strict=True)]

    def _finished(self, source: Encoded, target: Encoded, way: Ways, wish: Wish) -> Match:
        """The match of one pair, from what the network's first pass says of it."""
        flow, backward = way.flow, way.backward
        mixture = None if self.settings.confidence == "roundtrip" else way.mixture
        found: Found | None = None
        if wish.search != "none" or wish.polish:
            seen = networks.views_of(source, target)
        if wish.search != "none":
            searcher = networks.searcher(
                self.computation,
                (source, target),
                seen,
                lambda s, t, frame: self._answer(Asked([s], [t], True, wish.tile, frame=frame)).ways()[0],
                wish.search,
                self.points,
                self.settings.plane,
                way.plane,
            )
            settled = None
            with threads():
                if backward is None:
                    sure = Match(flow, source.size, self.provenance, mixture=mixture, learned=self.learned)
                    settled = searcher.settled(OneWay(flow, sure.confidence))
                if settled is not None:
                    flow, found = settled
                else:
                    back = self._way_back(source, target, way) if backward is None else backward
                    (flow, backward), found = searcher(TwoWay(flow, back))
            mixture = None if found.hypothesis else mixture  # it is of a flow that is no longer there
        exact = found is not None and found.plane  # a plane that keypoints stand for
        if wish.polish:
            with threads():
                if wish.polish is True or (not exact and looks_alike(flow, seen)):
                    flow = refined(flow, seen)
                    backward = None if backward is None else refined(backward, seen.reverse)
        if found is not None and self.settings.plane and not exact:
            with threads():
                ways = OneWay(flow, sure.confidence) if backward is None else TwoWay(flow, backward)
                flat = flattened(ways, seen, partial(keypoints, seen))
            if flat is not None:
                flow, found = flat, replace(found, plane=True)
        return Match(
            flow, source.size, self.provenance, backward if wish.backward or wish.confidence else None,
            self.calibration, source.valid, target.valid, (source.picture, target.picture), found,
            mixture if wish.confidence or not self._own else None, self.learned,
        )  # fmt: skip

    @torch.inference_mode()
    def _way_back(self, source: Encoded, target: Encoded, way: Ways) -> np.ndarray:
        """The network's flow from the source into the target, of a pair whose way there is known."""
        with out_of_memory_told(self.device, source.size, target.size, 1, self.frame(target.size)):
            return as_array(nearer.way_back(self.computation, source, target, way.plane, coarse=way.coarse)[0])

    @torch.inference_mode()
    def _answer(self, asked: Asked) -> nearer.Answer:
        """As `glunet.inference.nearer.answer`, of pairs some of which may be mirrored."""
        source_size, size, count = asked.sources[0].size, asked.targets[0].size, len(asked.targets)
        with out_of_memory_told(self.device, source_size, size, count, asked.frame or self.frame(size)):
            if not self.settings.flipping:
                return nearer.answer(self.computation, asked)
            batches = [torch.cat([image.pixels for image in images]) for images in (asked.sources, asked.targets)]
            pixels, flipped = self.computation.mirrored(*batches)
            targets = [Encoded(p[None], t.valid, t.settings) for p, t in zip(pixels, asked.targets, strict=True)]
            flow, backward, planes, _ = nearer.answer(self.computation, asked._replace(targets=targets))
            flow = torch.cat((unmirror_flow(flow[:, :2], flipped), mirror_where(flow[:, 2:], flipped)), dim=1)
            if backward is not None:
                backward = unmirror_backward(backward, flipped, size[1])
            # A mirrored target's plane is none of the target's.
            planes = [None if mirrored else plane for mirrored, plane in zip(flipped, planes, strict=True)]
            return nearer.Answer(flow, backward, planes)

    def frame(self, target_size: tuple[int, int]) -> tuple[int, int]:
        """The frame, (height, width), that a target of this size is matched in."""
        return self.computation.frame(target_size)

    def tile(
        self,
        source_size: tuple[int, int],
        target_size: tuple[int, int],
        both: bool = True,
        max_memory: int | None = None,
    ) -> int | None:
        """The side of the tiles in which to match a pair of these sizes, (height, width); None for all at once.

        Raises:
            GlunetError: if it is too large even so.
        """
        if max_memory is not None and not 1 <= max_memory < float("inf"):
            raise GlunetError(f"max_memory is {max_memory} bytes: it must be a positive number, 8e9 for 8 GB.")
        available = available_bytes(self.device) if max_memory is None else int(max_memory)
        if available is None or self._needed(source_size, target_size, 1, both) <= available:
            return None
        side = None
        if self.computation.config.network in tiles.NETWORKS:
            side = tiles.fitting_side(source_size, target_size, available, self.frame(target_size))
        if side is None:
            limit = f"{human(available)} is available on {self.device}"
            if max_memory is not None:
                limit = f"max_memory allows {human(available)}"
            raise too_large(source_size, target_size, 1, limit, self.frame(target_size))
        logger.info("%s by %s px of target are matched in tiles of %d", *target_size, side)
        return side

    def _needed(self, source_size: tuple[int, int], target_size: tuple[int, int], pairs: int, both: bool) -> int:
        frame = self.frame(target_size)
        decoded = 2 * pairs if both and frame[0] * frame[1] <= nearer.LARGE else pairs
        return needed_bytes(source_size, target_size, decoded, frame=frame)

    def _check_memory(self, source_size: tuple[int, int], target_size: tuple[int, int], pairs: int) -> None:
        available = available_bytes(self.device)
        if available is not None and self._needed(source_size, target_size, pairs, False) > available:
            limit = f"{human(available)} is available on {self.device}"
            raise too_large(source_size, target_size, pairs, limit, self.frame(target_size))
