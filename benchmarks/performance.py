"""Writes docs/performance.md from what `glunet bench --json FILE` measured.

glunet bench --full --json bench.json
python -m benchmarks.performance bench.json docs/performance.md --note "Nothing else ran on this machine."
"""

import argparse
import json
from pathlib import Path
from typing import Any

from glunet.bench.tables import left_out, machine_lines, tables
from glunet.flow.files import writing

INTRODUCTION = """\
What a pair costs: seconds, memory, and how far that is from the least a machine like this could take. Two cores of
another kind give other seconds; the ratios hold better. Measure your own: `glunet bench`, two minutes; `--full`, eight.

- Seconds are of one flow, from uint8 images in memory to a flow in memory, in one direction and without confidence;
  "default settings" with the passes and the pyramid that the weights were made for (docs/matches.md), the other rows of
  GLU-Net with one pass and none, as in the paper; "match()" is `glunet.load().match`: default speed, with search,
  polish and confidence. The median of the rounds, in brackets the
  fastest and the slowest. All rows of a table run in turns in one process, so that a neighbour who slows the machine
  slows them all; ratios are taken round by round.
- The **plain twin** ([twin.py](../src/glunet/bench/twin.py)) computes the same flow from the same weights the way the
  authors' programs do: four passes of VGG-16 over one image each, NCHW, float32, BatchNorm as a layer, 81 shifted
  products for a local correlation, eager. It is frozen. "Published" rows have the paper's own decoders
  (dense, twice the parameters of those in the package's weights) and random weights, which do not change their time.
- On a GPU float32 means float32, also for the plain twin: TensorFloat-32 is off for it.
- Memory is the peak of a fresh process above its peak after `import torch`; on a GPU what torch allocated there.
- The floor is the time that the multiplications and additions of convolutions and correlations would take at the rate
  of VGG's 3 x 3 convolutions, the best of both layouts, measured here in the same run.
- DIS and RAFT are what one might pick instead; they are made for neighbouring frames of a video. RAFT has random
  weights, which do not change its time, and its usual 12 iterations.
- The network as an ONNX file beside PyTorch, at equal threads: [docs/onnx.md](onnx.md).
"""


def page(result: dict[str, Any], command: str, note: str = "") -> str:
    """The Markdown page of a measurement (`glunet.bench.measure`)."""
    parts = ["# Performance\n", f"Written by `{command}` on {result['date']}, not by hand.\n", INTRODUCTION]
    parts += ["## This machine\n", "\n".join(f"- {line}" for line in machine_lines(result)) + "\n"]
    if note:
        parts.append(f"{note}\n")
    parts += [table.markdown() for table in tables(result)]
    if result["left_out"]:
        parts.append("## Left out\n\n" + "\n".join(f"- {line}" for line in left_out(result)) + "\n")
    return "\n".join(parts)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measured", type=Path, help="what `glunet bench --json` wrote")
    parser.add_argument("page", type=Path)
    parser.add_argument("--note", default="", help="a sentence of yours for the page")
    given = parser.parse_args()
    result = json.loads(given.measured.read_text())
    with writing(given.page) as part:
        part.write_text(page(result, result["command"], given.note), encoding="utf-8")
    print(given.page)


if __name__ == "__main__":
    main()
