"""The matcher inside of programs that hold many matchers: vismatch and hloc.

Each wants a class of its own base class: it is made when it is asked for, and nothing is imported before.
"""

import sys
from types import ModuleType
from typing import Any

from torch import Tensor

from glunet.errors import GlunetError
from glunet.interop import DenseMatcher
from glunet.loading import load
from glunet.matcher import Matcher

# For `hloc.match_dense.main(HLOC, pairs, images, export_dir)`, after `register_with_hloc()`.
HLOC: dict[str, Any] = {
    "output": "matches-glunet",
    "model": {"name": "glunet"},
    "preprocessing": {"grayscale": False, "resize_max": 1024, "dfactor": 1},
    "max_error": 2,
    "cell_size": 8,
}


def vismatch_matcher(matcher: Matcher, points: int = 2048, least: float = 0.5, **ransac: Any) -> Any:
    """A `vismatch.BaseMatcher`: `vismatch_matcher(matcher)(image0, image1)` answers as each of its matchers does.

    Args:
        points: most correspondences of a pair, spread over image0.
        least: the confidence below which there is none.
        ransac: what vismatch's base class takes (`ransac_iters`, `ransac_conf`, `ransac_reproj_thresh`).

    Raises:
        GlunetError: no vismatch.
    """
    try:
        from vismatch import BaseMatcher
    except ImportError as error:
        raise GlunetError(f"vismatch cannot be imported ({error}): pip install vismatch.") from error

    class Glunet(BaseMatcher):
        """GLU-Net's matches."""

        def __init__(self) -> None:
            super().__init__(str(matcher.device), **ransac)
            self.matcher = DenseMatcher(matcher, points, least)

        def _forward(self, image0: Tensor, image1: Tensor) -> tuple[Tensor | None, ...]:
            found = self.matcher({"image0": image0[None], "image1": image1[None]})
            return found["keypoints0"], found["keypoints1"], None, None, None, None, found["confidence"]

    return Glunet()


def register_with_hloc() -> None:
    """Makes hloc's `match_dense` find a matcher of the name "glunet" (`HLOC` is a configuration that names it).

    Its model takes from the configuration: "weights" (a name or file, `glunet.load`), "points" (most of a pair, 5000)
    and "least" (confidence, 0.5). As hloc has it, image1's points lie on pixels and image0's between them.

    Raises:
        GlunetError: no hloc.
    """
    try:
        from hloc import matchers
        from hloc.utils.base_model import BaseModel
    except ImportError as error:
        raise GlunetError(f"hloc cannot be imported ({error}): install it from its repository.") from error
    name = f"{matchers.__name__}.glunet"

    class Glunet(BaseModel):
        """GLU-Net's matches."""

        default_conf = {"weights": "glunet", "points": 5000, "least": 0.5}  # noqa: RUF012
        required_inputs = ["image0", "image1"]  # noqa: RUF012

        def _init(self, conf: dict[str, Any]) -> None:
            self.matcher = DenseMatcher(load(conf["weights"], plane=False), conf["points"], conf["least"])

        def _forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
            found = self.matcher({"image0": data["image1"], "image1": data["image0"]})
            return {
                "keypoints0": found["keypoints1"],
                "keypoints1": found["keypoints0"],
                "scores": found["confidence"],
            }

    Glunet.__module__ = name  # hloc takes the one class that says it is of this module
    module = ModuleType(name, "Made by glunet.interop.frameworks.")
    module.Glunet = Glunet  # type: ignore[attr-defined]
    sys.modules[name] = module
