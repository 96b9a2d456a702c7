"""docs/gallery.md and its pictures: what the network can and cannot do, on pictures that may be shown.

    python -m benchmarks.gallery                     the page, its pictures, and those of the HTML page (with a browser)
    python -m benchmarks.gallery --pairs pairs       only the pairs, as files for the commands on the page

Minutes on two cores. Run it again whenever the weights change: nothing on the page is written by hand but this file and
gallery_pairs.py.
"""

import argparse
import datetime
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from benchmarks import browser
from benchmarks.gallery_pairs import ENTRIES, FRAMES, Entry, Pair, frame, frame_pair
from benchmarks.gallery_pictures import LEAST, Panel, coloured, mean_of, panels, row, save, stacked, veiled
from PIL import Image

import glunet
from glunet.evaluation.metrics import aepe, epe, pck
from glunet.flow.geometry import frame_flow_to_source
from glunet.inference.confidence import tolerance
from glunet.match import Match

DOCS = Path(__file__).parents[1] / "docs"
SHOWN_FRAMES = (8, 16, 24)


class Result(NamedTuple):
    """A pair's row in the table: pixels, shares, and whether the verdict was that both show the same thing."""

    error: float | None
    still: float | None
    near: float | None
    confidence: float
    same: bool | None

    @property
    def word(self) -> str:
        if self.near is None:
            return "told apart" if self.same is False else "not told apart"
        return "found" if self.near >= 0.8 else "in part" if self.near >= 0.3 else "lost"


def measure(pair: Pair, match: Match) -> Result:
    """Errors over the pixels, or the points, whose truth is known."""
    still = frame_flow_to_source(torch.zeros(1, 2, *match.target_size), match.source_size)[0].permute(1, 2, 0).numpy()
    error, before, near = None, None, None
    if pair.points is not None:
        here, there = pair.points
        x, y = here.T
        found, without = match.map[y, x], here + still[y, x]
        error, before = aepe(found, there), aepe(without, there)
        near = pck(epe(found, there), 0.1 * max(match.source_size))
    elif pair.truth is not None:
        known = np.isfinite(pair.truth).all(-1)
        error, before = aepe(match.flow, pair.truth, known), aepe(still, pair.truth, known)
        near = pck(epe(match.flow, pair.truth)[known], tolerance(match.target_size))
    return Result(error, before, near, float(match.confidence.mean()), match.verdict.same)


def one(entry: Entry, matcher: "glunet.Matcher") -> tuple[Result, Image.Image]:
    pair = entry.make()
    match = matcher.match(pair.source, pair.target, **dict(entry.options))
    return measure(pair, match), row(panels(pair, match, entry.veil))


def video(matcher: "glunet.Matcher") -> tuple[Result, Image.Image]:
    """All frames on the first one, whose features are computed once; the result is the mean over the frames."""
    first = matcher.encode(frame(0))
    results, shown = [], []
    for number in range(1, FRAMES):
        pair = frame_pair(number)
        match = matcher.match(pair.source, first)
        results.append(measure(pair, match))
        if number in SHOWN_FRAMES:
            shown.append((number, pair.source, match))
    laid = mean_of([frame(0)] + [np.where((m.confidence >= LEAST)[..., None], m.warp(s), 0) for _, s, m in shown])
    top: list[Panel] = [("first frame", frame(0)), *((f"frame {n}", source) for n, source, _ in shown)]
    middle: list[Panel] = [("all four laid over each other", laid)]
    middle += [(f"frame {n}, warped onto the first", veiled(m.warp(source), m)) for n, source, m in shown]
    bottom: list[Panel] = [("", np.full_like(frame(0), 255))]
    bottom += [(f"flow, first frame to {n}", coloured(m)) for n, _, m in shown]
    means = [float(np.mean([getattr(result, name) for result in results])) for name in Result._fields[:4]]
    together = Result(means[0], means[1], means[2], means[3], all(result.same for result in results))
    return together, stacked([row(top), row(middle), row(bottom)])


def command(entry: Entry) -> str:
    words = ""
    for name, value in entry.options:
        words += f" --{'' if value else 'no-'}{name}" if isinstance(value, bool) else f" --{name} {value}"
    return f"glunet match pairs/{entry.name}-source.png pairs/{entry.name}-target.png{words} --html {entry.name}.html"


def sentence(entry: Entry, result: Result) -> str:
    verdict = {True: "both show the same thing", False: "they do not show the same thing", None: "none"}[result.same]
    confidence = f"Mean confidence {result.confidence:.2f}; verdict: {verdict}."
    if result.error is None or result.near is None:
        return confidence
    within = "10 % of the source's longer side" if entry.name == "portraits" else "1 % of the longer side"
    error = f"Mean error **{result.error:.1f} px** (no motion: {result.still:.1f} px)"
    return f"{error}, {100 * result.near:.0f} % within {within}.\n{confidence}"


HEAD = """# What it can and cannot do

Every pair with the command that matches it, and its error where the truth is known. This page and its pictures are
written by `python -m benchmarks.gallery`; this time on {date} with
{made}.

| pair | error, px | no motion, px | near | confidence | |
| --- | --- | --- | --- | --- | --- |
{rows}

*Near*: the share of pixels (in view, truth known) within 1 % of the longer side; of the faces, of points within 10 %.
*Found* is 80 % near and more, *in part* 30 % and more. Striped in the pictures: no match, confidence below 50 %. In the
flow's colours the hue is the direction, right is red, down yellow, and white is no motion; grey is out of view.

The pairs as files, for the commands below (each writes [a page that answers](view.md)):

    python -m benchmarks.gallery --pairs pairs
"""

SECTION = """
## {entry.title}

{entry.words}

![{entry.title}: target, source, warped source, flow](images/gallery/{entry.name}.webp)

{sentence}

    {command}

<sub>{entry.credit}.</sub>
"""


def table_row(entry: Entry, result: Result) -> str:
    error, still = (f"{value:.1f}" if value is not None else "-" for value in (result.error, result.still))
    near = f"{100 * result.near:.0f} %" if result.near is not None else "-"
    link = entry.title.lower().replace(" ", "-")
    return f"| [{entry.title}](#{link}) | {error} | {still} | {near} | {result.confidence:.2f} | {result.word} |"


def write(rows: list[tuple[Entry, Result]], made: str, path: Path) -> None:
    table = "\n".join(table_row(entry, result) for entry, result in rows)
    text = HEAD.format(date=datetime.date.today(), made=made, rows=table)
    for entry, result in rows:
        text += SECTION.format(entry=entry, sentence=sentence(entry, result), command=command(entry))
    path.write_text(text, encoding="utf-8")


def screenshots(matcher: "glunet.Matcher", folder: Path) -> None:
    """The HTML page of the stereo pair on a desk and on a phone."""
    entry = next(entry for entry in ENTRIES if entry.name == "stereo")
    pair = entry.make()
    with tempfile.TemporaryDirectory() as made, browser.browser() as opened:
        path = Path(made) / "view.html"
        matcher.match(pair.source, pair.target).save(path)
        desk = {"viewport": {"width": 1240, "height": 780}}
        phone = {
            "viewport": {"width": 360, "height": 740},
            "has_touch": True,
            "is_mobile": True,
            "device_scale_factor": 2,
        }
        for name, keys, settings in (
            ("view-desk", "2", desk),
            ("view-dark", "4", desk | {"color_scheme": "dark"}),
            ("view-phone", "1", phone),
        ):
            context = opened.new_context(**settings)
            page = context.new_page()
            page.goto(path.as_uri())
            page.wait_for_selector("#viewer:not([hidden])")
            page.keyboard.press(keys)
            box = page.locator("#target").bounding_box()
            page.evaluate("([x, y]) => move(Math.floor(x * match.width), Math.floor(y * match.height))", [0.72, 0.33])
            assert box is not None
            shot = Path(made) / f"{name}.png"
            page.screenshot(path=shot)
            with Image.open(shot) as picture:
                save(picture.convert("RGB"), folder / f"{name}.webp")
            context.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", default="glunet", help="a name in the package, or a file")
    parser.add_argument("--docs", type=Path, default=DOCS, help="folder of gallery.md and images/")
    parser.add_argument("--pairs", type=Path, help="write the pairs into this folder, and nothing else")
    asked = parser.parse_args()
    if asked.pairs is not None:
        asked.pairs.mkdir(parents=True, exist_ok=True)
        for entry in ENTRIES:
            pair = entry.make()
            for role in ("source", "target"):
                Image.fromarray(getattr(pair, role)).save(asked.pairs / f"{entry.name}-{role}.png")
        return
    matcher = glunet.load(asked.weights)
    rows = []
    for entry in ENTRIES:
        result, picture = video(matcher) if entry.name == "video" else one(entry, matcher)
        save(picture, asked.docs / "images" / "gallery" / f"{entry.name}.webp")
        rows.append((entry, result))
        print(f"{entry.name:16}{sentence(entry, result)}".replace("\n", " "), flush=True)
    write(rows, matcher.provenance.line(), asked.docs / "gallery.md")
    if lacking := browser.missing():
        print(f"no pictures of the HTML page: {lacking}", file=sys.stderr)
    else:
        screenshots(matcher, asked.docs / "images")


if __name__ == "__main__":
    main()
