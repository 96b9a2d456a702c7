"""What the pages say to type: Python runs, commands exist, and the tutorials' commands run too."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from sybil import Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

import rendered
from conftest import Command
from glunet import cli
from places import ROOT

skimage_data = pytest.importorskip("skimage.data")

PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md")))}
WITH_PYTHON = [name for name, path in PAGES.items() if "```python" in path.read_text()]
COMMANDS = [
    (name, line.split("#")[0].strip())
    for name, path in PAGES.items()
    for line in re.findall(r"^    (glunet .+)$", path.read_text(), re.MULTILINE)
]


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that we are in: a pair of images, and three photographs around a scene."""
    monkeypatch.chdir(tmp_path)
    left, right, _ = skimage_data.stereo_motorcycle()
    for name, pixels in (("source", right), ("target", left)):
        Image.fromarray(pixels).resize((160, 120)).save(tmp_path / f"{name}.jpg")
    paint = [
        np.asarray(Image.fromarray(image).resize(size))
        for image, size in ((skimage_data.coffee(), (500, 350)), (skimage_data.astronaut(), (150, 150)))
    ]
    (tmp_path / "photos").mkdir()
    for number, camera in enumerate(rendered.cameras(3, (120, 160), 150.0)):
        Image.fromarray(rendered.picture(camera, paint, 50.0)).save(tmp_path / "photos" / f"{number}.png")
    return tmp_path


@pytest.fixture
def known(files: Path) -> dict[str, Any]:
    """What pages take for granted: images and points by these names."""
    import cv2
    import torch

    import glunet

    source, target = (np.asarray(Image.open(files / f"{name}.jpg")) for name in ("source", "target"))
    matcher = glunet.load()
    camera = np.array(((150.0, 0, 80), (0, 150.0, 60), (0, 0, 1)))
    tensors = [torch.from_numpy(image.copy()).permute(2, 0, 1)[None] / 255 for image in (source, target)]
    return {
        "cv2": cv2,
        "glunet": glunet,
        "matcher": matcher,
        "match": matcher.match(source, target, backward=True),
        "points": np.array([(50.0, 60.0), (90.5, 30.25)]),
        "paths": [files / "source.jpg"],
        **dict.fromkeys(("source", "frame1", "moving"), source),
        **dict.fromkeys(("target", "frame0", "reference"), target),
        **dict.fromkeys(("K_target", "K_source"), camera),
        **{"tensor0": tensors[1], "tensor1": tensors[0]},
    }


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_python_runs(name: str, files: Path, request: pytest.FixtureRequest, command: Command) -> None:
    """Blocks in their order, in one namespace; the commands (```sh) of tutorials and examples between them."""

    def run(example: Any) -> None:
        for line in example.parsed.strip().splitlines():
            code, _, errors = command(*shlex.split(line)[1:])
            assert code == 0, f"{line}: {errors}"

    tutorial = name.startswith(("docs/tutorials", "docs/examples"))
    parsers = [PythonCodeBlockParser(), SkipParser(), *([CodeBlockParser("sh", run)] if tutorial else [])]
    document = Sybil(parsers=parsers, path=str(ROOT)).parse(PAGES[name])
    if not tutorial:
        document.namespace.update(request.getfixturevalue("known"))
        Image.open("source.jpg").save("image.jpg")
    ran = [example for example in document.examples() if example.evaluate() is None]
    assert ran


@pytest.mark.parametrize(("name", "line"), COMMANDS, ids=lambda value: value[:60])
def test_commands_exist(name: str, line: str) -> None:
    """Each command has the options that a page gives it, and they take those values."""
    words = shlex.split(line)[1:]
    if words != ["--help"]:
        typer.main.get_command(cli.app).commands[words[0]].make_context(words[0], words[1:])
