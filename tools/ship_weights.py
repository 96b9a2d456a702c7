"""Put a run's weights into the package, with what a person must know of them in their metadata.

python tools/ship_weights.py RUN/weights.safetensors --hours 1.9 --device "2 CPU cores" [--numbers results.json]
"""

import argparse
import json
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

from glunet.flow.files import writing

FOLDER = Path(__file__).parent.parent / "src" / "glunet" / "weights"
CARD = {
    "what": "GLU-Net's decoders for the package's VGG-16: one network for geometric, flow and semantic matching",
    "data": "synthetic scenes made of 4,501 photographs, without labels (docs/data.md)",
    "licence": "Apache-2.0 for what is ours; the photographs have mixed licences, some for research only "
    "(docs/model-card.md)",
    "credit": "encoder: VGG-16, Simonyan and Zisserman 2014, CC BY 4.0",
    "iterative_refinement": True,
    "pyramid": True,
    "passes": 2,
    "anchor": True,
    "ensemble": True,
    "looks": 2,
    "enlarge_to": 256,
    "search": "auto",
    "polish": "auto",
    "plane": True,
    "speed": "auto",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path)
    parser.add_argument("--name", default="glunet")
    parser.add_argument("--hours", type=float, required=True, help="of training in all, warm restarts counted in")
    parser.add_argument("--device", required=True)
    parser.add_argument("--init", help="what the run started from, by its public name; instead of a local path")
    parser.add_argument("--numbers", type=Path, help="results.json of glunet eval all")
    given = parser.parse_args()
    with safe_open(given.weights, framework="pt") as file:
        metadata = json.loads(file.metadata()["glunet"])
    metadata = {"name": given.name} | CARD | metadata
    metadata["training"] |= {"hours": given.hours, "device": given.device}
    if given.init:
        metadata["training"]["init"] = given.init
    if given.numbers:
        metadata["numbers"] = numbers(json.loads(given.numbers.read_text()))
    path = FOLDER / f"{given.name}.safetensors"
    with writing(path) as part:
        save_file(load_file(given.weights), part, metadata={"glunet": json.dumps(metadata)})
        part.chmod(0o644)
    print(path, path.stat().st_size, "bytes")
    print(json.dumps(metadata, indent=2))


def numbers(evaluation: dict) -> dict[str, dict[str, float | int | str]]:
    """The network's own headline figures of an evaluation: set -> metric, value, pairs, and which part of the set."""
    return {
        result["benchmark"]: {
            result["headline"]["metric"]: round(result["headline"]["value"], 4),
            "pairs": result["pairs"],
            "part": result["part"] or "whole",
        }
        for result in evaluation["results"]
        if result["method"] == "glunet"
    }


if __name__ == "__main__":
    main()
