"""What `glunet video` does: a flow file for each pair of frames, films, and a list of it all, in bounded memory."""

import json
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glunet.errors import GlunetError
from glunet.flow.files import write_flow, write_json
from glunet.flow.picture import flow_to_rgb
from glunet.images.folders import smaller
from glunet.inference.search import Search
from glunet.match import Match
from glunet.video import stabilise
from glunet.video.film import Add, film
from glunet.video.flows import Direction, Step, check_fixed, flows
from glunet.video.reader import Frames

if TYPE_CHECKING:
    from glunet.matcher import Matcher

FILMS = ("flow", "warped", "stabilised")
LIST = "video.json"
Watch = Callable[[str, int, int, str], None]  # what is being done, how many are done, of how many, and what is wrong


@dataclass(frozen=True)
class Plan:
    """What to do with a video.

    Attributes:
        wanted: numbers of the frames.
        against, direction, size, confidence: see `glunet.video.flows`.
        suffix: of the flow files, ".flo" say; "" for none.
        films: some of FILMS.
        smooth: seconds, for stabilised film of consecutive frames (`glunet.video.stabilise.smooth_path`).
        flow_max: length with full colour in the flow film, pixels; None for the longest so far (99 of 100 pixels).
        keep_going: broken frames are named and passed over.
        resume: flow files that are there already are left alone.
        search: see `glunet.video.flows`.
    """

    wanted: range
    against: int | None = None
    direction: Direction = "forward"
    size: int | None = None
    confidence: bool = True
    suffix: str = ".flo"
    films: tuple[str, ...] = ()
    smooth: float = 1.0
    flow_max: float | None = None
    keep_going: bool = False
    resume: bool = False
    search: Search | None = None

    def name(self, target: int, source: int) -> str:
        """Of the flow file on the target's grid that points into the source."""
        return f"{target:06d}-to-{source:06d}{self.suffix}"


@dataclass
class _Done:
    """What the loop over the pairs leaves behind: numbers, no pictures."""

    pairs: list[dict[str, Any]] = field(default_factory=list)
    problems: list[dict[str, Any]] = field(default_factory=list)
    shown: list[int] = field(default_factory=list)  # consecutive frames
    motions: list[np.ndarray | None] = field(default_factory=list)  # between these
    views: dict[int, np.ndarray] = field(default_factory=dict)  # fixed frame -> each frame
    size: tuple[int, int] | None = None
    longest: float = 0.0


def run(matcher: "Matcher", frames: Frames, out: Path, plan: Plan, watch: Watch = lambda *done: None) -> dict[str, Any]:
    """Matches, and writes to the folder `out`, which is made where it is missing.

    Flow files appear one after the other, each whole; a run that ends early leaves those it made. A film appears when
    it is finished. Files of the same names are replaced.

    Returns:
        What is written to `out`/video.json.

    Raises:
        GlunetError: a plan that does not fit the video, a broken frame without `keep_going`, files that cannot be
            written, or no flow at all.
    """
    _check(frames, plan)
    if frames.path.is_dir() and out.exists() and out.samefile(frames.path):
        raise GlunetError(f"--out '{out}' is the folder of the frames: results would pass for frames; name another.")
    total = len(plan.wanted) - (plan.against is None or plan.against in plan.wanted)
    settings = _settings(matcher, frames, plan)
    known = _resumed(out, settings) if plan.resume else {}
    out.mkdir(parents=True, exist_ok=True)
    done = _Done()
    content = {**settings, "complete": False, "pairs": done.pairs, "problems": done.problems}

    def there(target: int, source: int) -> bool:
        return plan.resume and (out / plan.name(target, source)).is_file()

    write_json(out / LIST, content)
    try:
        with ExitStack() as stack:
            rate = Fraction(frames.rate) / plan.wanted.step
            films = {
                kind: stack.enter_context(film(out / f"{kind}.mp4", rate))
                for kind in plan.films
                if kind != "stabilised"
            }
            steps = flows(
                matcher,
                frames,
                plan.wanted,
                against=plan.against,
                direction=plan.direction,
                size=plan.size,
                confidence=plan.confidence,
                known=there,
                search=plan.search,
            )
            for number, step in enumerate(steps, start=1):
                problem = _take(step, plan, out, films, done, known)
                if problem and not plan.keep_going:
                    raise GlunetError(
                        f"'{frames.path}': {problem}. What was written before it stays; --keep-going passes over such "
                        "frames."
                    )
                watch("matching", number, max(number, total), problem)
            if not done.pairs:
                raise GlunetError(
                    f"'{frames.path}': no pair of frames could be matched ({len(done.problems)} problems)."
                )
        if "stabilised" in plan.films:
            _stabilised(frames, plan, out / "stabilised.mp4", done, watch)
        content["complete"] = True
    finally:
        content["flow_size"] = done.size
        write_json(out / LIST, content)
    return content


def _take(
    step: Step, plan: Plan, out: Path, films: dict[str, Add], done: _Done, known: dict[tuple[int, int], dict[str, Any]]
) -> str:
    """Writes what comes of one pair; returns what is wrong with it, "" if nothing is."""
    pair = (step.target, step.source)
    if step.problem:
        alone = step.target == step.source
        what = f"frame {step.target}" if alone else f"frames {step.target} and {step.source}"
        done.problems.append({"frames": sorted(set(pair)), "problem": step.problem})
        if not alone and "stabilised" in plan.films:
            _moved(step, None, plan, done)
        return f"{what}: {step.problem}"
    entry: dict[str, Any] = {"target": step.target, "source": step.source, "time": round(step.time, 6)}
    if plan.suffix:
        entry["file"] = plan.name(*pair)
    if step.match is None:  # it is there already
        done.pairs.append(known.get(pair, entry))
        return ""
    match = step.match
    done.size = match.target_size
    length = np.hypot(match.flow[..., 0], match.flow[..., 1])
    entry["mean_displacement"] = round(float(length.mean()), 3)
    entry["in_view"] = round(float(match.in_view.mean()), 4)
    entry["confidence"] = round(float(match.confidence.mean()), 4)
    entry["same"] = match.verdict.same  # False is a cut, most likely
    if step.size is not None and step.size != match.target_size:
        entry["size"] = list(step.size)
    if plan.suffix:
        # A .flo's provenance would be a second file for each frame; it is in the list.
        metadata = None if plan.suffix == ".flo" else {**match.metadata(), "frames": list(pair)}
        write_flow(out / entry["file"], match.flow, metadata)
    if "flow" in films:
        done.longest = max(done.longest, float(np.percentile(length, 99)))
        scale = plan.flow_max or done.longest
        entry["full_colour"] = round(scale, 3)
        films["flow"](flow_to_rgb(match.flow, scale or 1.0, match.in_view), step.time)
    if "warped" in films:
        assert match.pictures is not None
        films["warped"](match.warp(match.pictures[0]), step.time)
    if "stabilised" in plan.films:
        _moved(step, match, plan, done)
    done.pairs.append(entry)
    return ""


def _moved(step: Step, match: Match | None, plan: Plan, done: _Done) -> None:
    """Notes how the camera moved between two frames."""
    if match is None or match.verdict.same is False:
        motion = None
    else:
        motion = stabilise.similarity(match) if plan.against is None else stabilise.homography(match)
    earlier, later = step.target, step.source
    if plan.direction == "backward":
        earlier, later = later, earlier
        motion = None if motion is None else np.linalg.inv(motion)
    if plan.against is None:
        if not done.shown:
            done.shown.append(earlier)
        done.shown.append(later)
        done.motions.append(motion)
    elif motion is not None:
        done.views[later] = motion
    if motion is None and match is not None:
        # No failure: the film begins anew, or leaves a frame out.
        done.problems.append({"frames": [earlier, later], "problem": "no common motion was found between them"})


def _stabilised(frames: Frames, plan: Plan, path: Path, done: _Done, watch: Watch) -> None:
    """The second look at the video: each frame through what is known of its motion now."""
    assert done.size is not None
    if plan.against is None:
        times = np.array([frames.time(number) for number in done.shown])
        path_of = stabilise.smooth_path(done.motions, times, done.size, plan.smooth)
        views = dict(zip(done.shown, path_of, strict=True))
    else:
        views = {**done.views, plan.against: np.eye(3)}
    with film(path, Fraction(frames.rate) / plan.wanted.step) as add:
        for number, frame in enumerate(frames.read(plan.wanted), start=1):
            if frame.pixels is not None and frame.number in views:
                pixels = smaller(frame.pixels, plan.size)
                add(stabilise.seen_through(pixels, views[frame.number], done.size), frame.time)
            watch("stabilising", number, len(plan.wanted), "")


def _check(frames: Frames, plan: Plan) -> None:
    wanted = plan.wanted
    if wanted.start >= wanted.stop:
        raise GlunetError(
            f"Frame {wanted.start} as the first comes after {wanted.stop - 1} as the last: '{frames.path}' "
            f"has frames 0 to {frames.count - 1}."
        )
    if wanted.start < 0 or wanted[-1] >= frames.count:
        raise GlunetError(
            f"Frames {wanted.start} to {wanted.stop - 1} were asked for, but '{frames.path}' has frames 0 to "
            f"{frames.count - 1}."
        )
    check_fixed(frames, plan.against)
    if len(wanted) == 1 and plan.against in (None, wanted[0]):
        held = "holds one frame" if frames.count == 1 else f"has {frames.count} frames, of which one is asked for"
        raise GlunetError(f"'{frames.path}' {held}, but a flow is between two: give more.")
    if plan.size is not None and plan.size < 64:
        raise GlunetError(f"A longer side of {plan.size} pixels was asked for: 64 is the least.")
    if plan.smooth <= 0 or (plan.flow_max is not None and plan.flow_max <= 0):
        raise GlunetError("--smooth and --flow-max are positive numbers: seconds, and pixels.")
    if not plan.suffix and not plan.films:
        raise GlunetError("Neither flow files nor a film are asked for: there is nothing to do.")
    if plan.resume and (plan.films or not plan.suffix):
        raise GlunetError("--resume goes on with flow files; a film is made in one go: run without --mp4.")


def _settings(matcher: "Matcher", frames: Frames, plan: Plan) -> dict[str, Any]:
    direction = {"forward": ("earlier", "later"), "backward": ("later", "earlier")}[plan.direction]
    if plan.against is not None:
        direction = ("fixed", "other") if plan.direction == "forward" else ("other", "fixed")
    kept = {k: v for k, v in asdict(plan).items() if k in ("against", "direction", "size", "confidence")}
    return {
        **matcher.provenance.as_dict(),
        "video": str(frames.path),
        "content": frames.fingerprint(),
        "first": plan.wanted.start,
        "last": plan.wanted[-1],
        "every": plan.wanted.step,
        "rate": float(frames.rate),
        **kept,
        "format": plan.suffix.lstrip("."),
        "meaning": f"the flow is on the {direction[0]} frame's grid (target) and points into the {direction[1]} one "
        "(source), in pixels of flow_size (height, width)",
    }


def _resumed(out: Path, settings: dict[str, Any]) -> dict[tuple[int, int], dict[str, Any]]:
    """What an earlier run noted of its pairs; nothing where there was none.

    Raises:
        GlunetError: if that run had other settings.
    """
    path = out / LIST
    if not path.exists():
        return {}
    try:
        before = json.loads(path.read_text(encoding="utf-8"))
        pairs = {(pair["target"], pair["source"]): pair for pair in before["pairs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GlunetError(f"'{path}' is not what this command writes: run without --resume.") from error
    other = [key for key in settings if key not in ("first", "last") and before.get(key) != settings[key]]
    if other:
        raise GlunetError(
            f"'{out}' was made with another {', '.join(other)}: run with the same settings, or without --resume."
        )
    return pairs
