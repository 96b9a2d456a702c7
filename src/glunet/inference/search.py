"""Search: lost pairs found. Hypotheses of how the target lies in the source, tried until the match agrees with itself.

One pass of the network is lost where the views differ too much: turned, tilted, zoomed. Two things are done with a
hypothesis, a homography (`glunet.inference.hypotheses`):

- *choose*: its own flow is taken wherever the images then look clearly more alike; nothing is computed by the network;
- *pass*: the network matches again with the source warped by it (stage "H" of Truong et al.'s PDC-Net), and part by
  part what returns to its place from there and back is taken, if the pair as a whole agrees with itself clearly better.

Keypoints always come first, since they cost little. Simulated views, passes, the encoder's features and the coarse grid
follow only while the match agrees badly with itself. Passes are tried on smaller copies; what these find, one pass of
the images as they are repeats. Rough homographies, of the network, of simulated views and of passes, are made exact by
keypoints of the source warped by them; a plane that enough of these stand for is taken where the flow comes near it and
no closer.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from glunet.errors import GlunetError
from glunet.geometry.estimation import apply_homography
from glunet.inference import hypotheses
from glunet.inference.confidence import tolerance
from glunet.inference.hypotheses import Hypothesis, PointSource
from glunet.inference.likeness import Views, blur, grid, length, warp
from glunet.inference.plane import (
    brought_onto,
    extended,
    finite,
    homography_flow,
    missed,
    one_plane,
    own_homography,
)

logger = logging.getLogger(__name__)

Search = Literal["none", "auto", "full"]
SEARCHES = get_args(Search)

AGREES = 0.6  # agreement from which on a pair counts as found
# Of a match that agrees so well, and hits the points of a hypothesis to so many pixels, it has nothing to gain.
AGREES_WELL, HITS = 0.9, 0.7
# Without a way back a pair counts as found if the network is sure (to `LIKELY`) of so much of what is in view.
SURE_OF, LIKELY = 0.8, 0.5
LOST = 0.4  # agreement below which the encoder's features and the coarse grid are asked, too
# A pass is accepted if the agreement rises by this much, and by this share of what it was.
RISE, SHARE = 0.03, 0.15
CERTAIN = 0.1  # agreement that a pair must have at least after a pass: less is chance
# By how much more alike, in local correlation, the images must look with a hypothesis' flow, and how alike.
MARGIN, LEAST = 0.02, 0.4
FEWEST_ALIKE = 0.2  # share of what is in view of a homography that must look alike: chance makes some of everything
PLANE = 0.6  # share of what has texture that must look more alike with one homography for the scene to be its plane
EQUAL = 0.05  # how much less alike a plane's flow may look where there is nothing to tell by
FEWEST_IN_VIEW = 0.2  # share of an image below which what is in view of it is not enough to go by
AS_GOOD = 0.75  # share of the coarse score of the images as they lie that a hypothesis must reach to be tried
LEAST_SCORE = 0.08  # and what it must be: each try is a pass, and with 0.03 no development pair comes out otherwise
# Images that score so well as they lie are of two things of one kind where the finer levels disagree: TSS's reach 0.51
# to 0.74, the pairs that another layout helps 0.43 at most. None is asked for then.
LIES_AS_IT_IS = 0.5
SURE = 100  # inliers of a homography that is no chance
SURE_NEARER = 20  # the same of one found through another: of 40 unrelated pairs none had 12


def check_search(search: Search) -> Search:
    """Raises a GlunetError for a word that `search` cannot be."""
    if search not in SEARCHES:
        raise GlunetError(f"search={search!r} came: it is one of {', '.join(map(repr, SEARCHES))}.")
    return search


@dataclass(frozen=True)
class Found:
    """What a search did.

    Attributes:
        hypothesis: which hypotheses the match rests on, in words; "" where it is the network's first pass alone.
        before, after: agreement of the first pass and of the result: the share of what both images see that comes back
            to within a tolerance (`glunet.inference.confidence`), 0..1; without a way back the share of what is in view
            that the network is sure of.
        points: how many keypoints agree on one homography that the match follows; 0 where it follows none.
        way_back: whether the way back was needed; without, the network was sure and keypoints agreed.
        plane: whether the scene is one plane, whose flow then stands wherever the match was not sure of another
            (`glunet.inference.plane.brought_onto`, `flattened`).
    """

    hypothesis: str
    before: float
    after: float
    points: int = 0
    way_back: bool = True
    plane: bool = False

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "hypothesis": self.hypothesis,
            "agreement_before": round(self.before, 4),
            "agreement_after": round(self.after, 4),
            "keypoints": self.points,
            "way_back": self.way_back,
            "plane": self.plane,
        }


class TwoWay(NamedTuple):
    """A flow, H x W x 2, target into source, and the flow back, H_source x W_source x 2; float32, pixels."""

    flow: np.ndarray
    backward: np.ndarray

    @property
    def reverse(self) -> "TwoWay":
        """The same with the roles of the images exchanged."""
        return TwoWay(self.backward, self.flow)

    def round_trip(self) -> np.ndarray:
        """How far from its place each target pixel comes back, in tolerances of the target: H x W."""
        return length(self.flow + warp(self.backward, self.flow)) / tolerance(self.flow.shape[:2])


class OneWay(NamedTuple):
    """A flow, H x W x 2, target into source, and how sure the network is of it, H x W, 0..1; no way back."""

    flow: np.ndarray
    confidence: np.ndarray

    def round_trip(self) -> np.ndarray:
        """What stands for it: nothing where the network is sure, else infinitely far."""
        return np.where(self.confidence >= LIKELY, 0, np.inf)


# Matches again with the source warped by a target -> source homography: from the target's grid to itself.
Pass = Callable[[np.ndarray], TwoWay]


class GlobalLevel(NamedTuple):
    """What a network with a global level says of a pair besides its passes.

    Attributes:
        scores: by the global level, 0..1 each: of the images as they lie, then of hypotheses.
        points: that match by the encoder's features, N x 2 in the source and N x 2 in the target, pixels.
    """

    scores: Callable[[Sequence[Hypothesis]], list[float]]
    points: Callable[[], tuple[np.ndarray, np.ndarray]]


@dataclass
class Searcher:
    """A search on one pair.

    Attributes:
        views: the two images.
        again: a pass of the network through a homography.
        coarse: the global level's say; None for a network without one.
        pictures: source and target, H x W x 3 uint8, for `sources`.
        how: "auto", or "full" for every hypothesis.
        sources: a user's own sources of matching points.
        reduced: as `again`, on smaller copies of the images, to try hypotheses by; None where that saves nothing.
        plane: whether a scene near a plane that keypoints stand for is brought onto it (the setting `plane`).
        near: what the network saw the source through in its first pass (`glunet.inference.nearer`); None for nothing.
    """

    views: Views
    again: Pass
    coarse: GlobalLevel | None
    pictures: tuple[np.ndarray, np.ndarray]
    how: Search = "auto"
    sources: Sequence[PointSource] = ()
    reduced: Pass | None = None
    plane: bool = True
    near: Hypothesis | None = None

    def __post_init__(self) -> None:
        self.trial = self.again if self.reduced is None or self.how == "full" else self.reduced
        self.through: Hypothesis | None = None  # that of the last pass that was accepted
        self.origins: list[str] = []
        self.on_plane = False
        self.known: dict[int, list[Hypothesis]] = {}

    def settled(self, first: OneWay) -> tuple[np.ndarray, Found] | None:
        """The flow and what was found without a way back, where the network is sure and keypoints agree.

        The network alone is sure of a thermal picture and a photograph, too, whose parts it has mistaken.

        None for all other pairs, which need the way back.
        """
        seen = self.views.in_view(first.flow)
        share = float((seen & (first.round_trip() <= 1)).sum() / max(seen.sum(), FEWEST_IN_VIEW * seen.size))
        if self.how == "full" or share < SURE_OF:
            return None
        self.guesses = self._from_points(hypotheses.LONGEST_QUICK)
        if not self.guesses or any(misses(first.flow, guess) > HITS for guess in self.guesses):
            return None
        return self._result(first, share, share)

    def __call__(self, first: TwoWay) -> tuple[TwoWay, Found]:
        """The best match from the network's first pass on."""
        self.best = first
        self.agreement = before = agreement(first, self.views)
        quick = self.how != "full" and before >= AGREES
        self.guesses = self._from_points(hypotheses.LONGEST_QUICK if quick else hypotheses.LONGEST)
        self._choose(self.guesses)
        if self.near is not None and not self.guesses:
            self._closer(self.near)
        if self._goes_on(AGREES):
            simulated = hypotheses.from_keypoints(self.views, simulate=True)
            simulated += hypotheses.through(simulated[:1], self.views)
            self._choose(simulated)
            self.guesses += simulated
        start = self.best, self.agreement, list(self.origins)
        if self._goes_on(AGREES):
            for guess in sorted(self.guesses, key=lambda guess: -guess.inliers)[: None if self.how == "full" else 1]:
                self._pass(guess)
        if self.coarse is not None and self._goes_on(LOST) and not self._lies_as_it_is():
            located = self._scored(hypotheses.from_features(self.coarse.points(), self.views))
            if not located or self.how == "full":
                sizes = self.views.target.shape, self.views.source.shape
                self._scored(hypotheses.coarse(*sizes, every=self.how == "full"))
        if self.through is not None and self.trial is not self.again:
            self._at_full_size(*start)
        if self.through is not None:
            self._closer(self.through)
        if self.plane:
            self._flatten([guess for guess in self.guesses if guess.exact])
        flow, found = self._result(self.best, before, self.agreement)
        return TwoWay(flow, self.best.backward), found

    def _closer(self, rough: Hypothesis) -> None:
        """Takes over what keypoints say through a rough hypothesis."""
        guesses = hypotheses.through([rough], self.views)
        self._choose(guesses)
        self.guesses += guesses

    def _from_points(self, longest: int) -> list[Hypothesis]:
        """Hypotheses of keypoints, on copies with this longest side, and of the user's own sources of points."""
        if longest not in self.known:
            made = hypotheses.from_keypoints(self.views, longest)
            for number, source in enumerate(self.sources, start=1):
                made += hypotheses.from_points(source(*self.pictures), self.views, f"points of source {number}")
            self.known[longest] = made
        return list(self.known[longest])

    def _result(self, best: TwoWay | OneWay, before: float, after: float) -> tuple[np.ndarray, Found]:
        """The flow of the best match, its one plane continued, and what was found."""
        plane = one_plane(best, self.views, [guess.matrix for guess in self.guesses])
        flow = best.flow if plane is None else extended(best, self.views, plane)
        logger.debug("agreement %.2f before, %.2f after %s", before, after, self.origins)
        follows = [g.inliers for g in self.guesses if misses(best.flow, g) <= tolerance(self.views.source.shape)]
        origins = ", ".join(dict.fromkeys(self.origins))
        back = isinstance(best, TwoWay)
        return flow, Found(origins, before, after, max(follows, default=0), back, self.on_plane)

    def _goes_on(self, enough: float) -> bool:
        """Whether to look further: everything is wanted, or the match agrees badly.

        What is lost in spite of a sure hypothesis looks different to the network (heat and light, say), which has
        nothing to add; nor has it where its first pass was one through that hypothesis. Else, where a part agrees, a
        pass through it finds the rest.
        """
        sure = [guess for guess in self.guesses if self._sure(guess)]
        hopeless = any(self.agreement < LOST or self._seen_through(guess) for guess in sure)
        return self.how == "full" or (self.agreement < enough and not hopeless)

    def _sure(self, guess: Hypothesis) -> bool:
        """Whether so many points stand for a hypothesis that it is no chance, and the match follows it."""
        return guess.inliers >= SURE and misses(self.best.flow, guess) <= tolerance(self.views.source.shape)

    def _seen_through(self, guess: Hypothesis) -> bool:
        """Whether the network's first pass was one through this hypothesis, or nearly."""
        if self.near is None:
            return False
        away = np.linalg.norm(apply_homography(self.near.matrix, guess.target) - guess.source, axis=-1)
        return bool(np.median(away) <= tolerance(self.views.source.shape))

    def _lies_as_it_is(self) -> bool:
        """Whether the global level is sure enough of the images as they lie."""
        return self.how != "full" and self.coarse is not None and self.coarse.scores([])[0] >= LIES_AS_IT_IS

    def _choose(self, guesses: Sequence[Hypothesis]) -> None:
        """Takes over the flow of homographies wherever the images then look more alike, there and back."""
        if self.how != "full" and self.agreement >= AGREES_WELL:
            guesses = [guess for guess in guesses if misses(self.best.flow, guess) > HITS]
        if not guesses:
            return
        matrices = [guess.matrix for guess in guesses]
        flow = choose(self.best.flow, self.views, matrices)
        back = choose(self.best.backward, self.views.reverse, [np.linalg.inv(matrix) for matrix in matrices])
        if (flow != self.best.flow).any():
            self.best = TwoWay(flow, back)
            self.agreement = agreement(self.best, self.views)
            self.origins.append(guesses[0].origin)

    def _flatten(self, guesses: Sequence[Hypothesis]) -> None:
        """Takes over, there and back, the homography that most points agree on, if the scene is its plane."""
        guess = max(guesses, key=lambda guess: guess.inliers, default=None)
        if guess is not None and guess.inliers >= SURE_NEARER:
            ways = [
                (self.best, self.views, guess.matrix),
                (self.best.reverse, self.views.reverse, np.linalg.inv(guess.matrix)),
            ]
            flows = brought_onto(ways)
            if flows is not None:
                self.best, self.on_plane = TwoWay(*flows), True
                self.agreement = agreement(self.best, self.views)

    def _pass(self, guess: Hypothesis) -> bool:
        """Matches again through a hypothesis; whether that was accepted."""
        return self._accept(self._passed(self.best, guess.matrix), guess)

    def _passed(self, ways: TwoWay, matrix: np.ndarray) -> TwoWay:
        return better_parts(ways, self.trial(matrix), matrix, self.views)

    def _at_full_size(self, best: TwoWay, agreed: float, origins: list[str]) -> None:
        """What smaller copies have found, by a pass of the images as they are through its own homography.

        Where that is not accepted, all is as it was before.
        """
        assert self.through is not None
        found, matrix = self.origins, own_homography(self.best, self.views)
        matrix = self.through.matrix if matrix is None else matrix
        self.best, self.agreement, self.origins, self.trial = best, agreed, origins, self.again
        offered = self._passed(best, matrix)
        if self._accept(offered, Hypothesis(matrix, self.through.origin)):
            self.origins = found

    def _accept(self, offered: TwoWay, guess: Hypothesis) -> bool:
        """Takes what a pass through a hypothesis offers, if it agrees clearly better with itself."""
        after = agreement(offered, self.views)
        logger.debug("%s: agreement %.3f, was %.3f", guess.origin, after, self.agreement)
        if after < max(self.agreement + RISE, self.agreement * (1 + SHARE), CERTAIN):
            return False
        self.best, self.agreement, self.through = offered, after, guess
        self.origins.append(guess.origin)
        return True

    def _scored(self, guesses: Sequence[Hypothesis]) -> bool:
        """Matches through the hypothesis that scores best; whether that was accepted."""
        assert self.coarse is not None
        plain, *scored = self.coarse.scores(guesses)
        best_first = sorted(range(len(scored)), key=lambda i: -scored[i])
        if self.how != "full":
            best_first = [i for i in best_first[:1] if scored[i] >= max(LEAST_SCORE, AS_GOOD * plain)]
        return any([self._pass(guesses[i]) for i in best_first])  # a list: every one is tried


def misses(flow: np.ndarray, guess: Hypothesis) -> float:
    """By how many pixels a flow misses the points of a hypothesis, in the median; infinite without points."""
    if not guess.inliers:
        return np.inf
    return float(np.median(missed(flow, guess.target, guess.source)))


def agreement(ways: TwoWay, views: Views) -> float:
    """The share of what both images see that comes back to within a tolerance, 0..1.

    What an image shows and the other does not is in nobody's power to match, and a flow leads it anywhere: so the
    larger share of the two directions counts. Of an image at least a fifth must be in view, or its share is of that.
    """
    shares = []
    for way, seen_by in ((ways, views), (ways.reverse, views.reverse)):
        seen = seen_by.in_view(way.flow)
        back = seen & (way.round_trip() <= 1)
        valid = seen.size if seen_by.target_valid is None else seen_by.target_valid.sum()
        shares.append(back.sum() / max(seen.sum(), FEWEST_IN_VIEW * valid))
    return float(max(shares))


def choose(flow: np.ndarray, views: Views, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """The flow, and that of target -> source homographies wherever the images look clearly more alike with it.

    Compared are local correlations, averaged over a 64th of the target's longer side.
    """
    radius = max(2, max(flow.shape) // 64)

    def alike(flow: np.ndarray, seen: np.ndarray) -> np.ndarray:
        return blur(np.where(seen, views.correlation(flow), -1).astype(np.float32), radius)

    own = alike(flow, views.in_view(flow))
    best, chosen = own.copy(), flow.copy()
    for matrix in matrices:
        offered = homography_flow(matrix, flow.shape)
        seen = views.in_view(offered)
        with_it = alike(offered, seen)
        textured = seen & views.textured
        if not textured.any() or (with_it > LEAST)[textured].mean() < FEWEST_ALIKE:
            continue
        wins = (with_it > own + MARGIN) & (with_it > LEAST)
        # Where one plane fits nearly everything with texture, it is the scene, and holds on bare walls as well.
        margin = -EQUAL if textured.mean() > FEWEST_IN_VIEW and wins[textured].mean() > PLANE else MARGIN
        better = seen & (with_it > best + margin) & (with_it > (LEAST if margin > 0 else -1))
        chosen[better] = offered[better]
        best[better] = with_it[better]
    return chosen


def better_parts(first: TwoWay, second: TwoWay, matrix: np.ndarray, views: Views) -> TwoWay:
    """Part by part, in both directions, what comes back closer to its place.

    Args:
        first: of the images as they are.
        second: of the source warped by `matrix`, target -> source: on the target's grid, both ways.
    """
    inverse = np.linalg.inv(matrix)
    size = first.flow.shape
    # There: where the second pass leads, and through the homography into the source.
    offered = finite(apply_homography(matrix, grid(size) + second.flow) - grid(size))
    # Back: from the source through the homography, and from there by the second pass.
    seen_at = apply_homography(inverse, grid(first.backward.shape))
    inside = np.isfinite(seen_at).all(-1) & (seen_at >= 0).all(-1) & (seen_at <= (size[1] - 1, size[0] - 1)).all(-1)
    to_there = np.where(inside[..., None], seen_at - grid(first.backward.shape), -1e6).astype(np.float32)
    offered_back = np.where(inside[..., None], to_there + warp(second.backward, to_there), -1e6).astype(np.float32)
    trips = second.round_trip(), warp(second.reverse.round_trip(), to_there)
    flow = _better(first.flow, first.round_trip(), offered, trips[0], views)
    backward = _better(first.backward, first.reverse.round_trip(), offered_back, trips[1], views.reverse)
    return TwoWay(flow, backward)


def _better(flow: np.ndarray, trip: np.ndarray, offered: np.ndarray, its: np.ndarray, views: Views) -> np.ndarray:
    """`offered` where its round trips, over a sixteenth of the longer side, are shorter than the flow's own."""
    radius = max(2, max(flow.shape) // 32)
    seen = views.in_view(offered)
    own, other = (np.log(np.minimum(t, 1e4) + 0.1).astype(np.float32) for t in (trip, its))
    shorter = blur(np.where(seen, other, own), radius) < blur(own, radius)
    return np.where((seen & shorter)[..., None], offered, flow)
