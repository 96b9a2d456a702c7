"""Every mistake a user can make with `glunet match`: exit code 2, one sentence, no traceback, nothing left behind."""

import logging
import os
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from glunet import cli, loading
from glunet import matcher as matcher_module
from untrained import matcher
from untrained import network as made_network

PICTURE = np.random.default_rng(0).integers(0, 256, (48, 64, 3)).astype(np.uint8)


@contextmanager
def file_limit(size: int) -> Iterator[None]:
    """Writing beyond `size` bytes fails with an OSError, as a full disk does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def file(name: str, content: bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        (folder / name).write_bytes(content)
        return folder / name

    return make


def picture(name: str, image: Image.Image, **options: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        image.save(folder / name, **options)
        return folder / name

    return make


def cut(name: str) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = picture(name, Image.fromarray(PICTURE))(folder)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return path

    return make


def foreign_weights(folder: Path) -> Path:
    save_file({"layer.weight": torch.zeros(3)}, folder / "foreign.safetensors")
    return folder / "foreign.safetensors"


def foreign_checkpoint(folder: Path) -> Path:
    torch.save({"state_dict": {"layer.weight": torch.zeros(3)}}, folder / "foreign.pth")
    return folder / "foreign.pth"


def cut_checkpoint(folder: Path) -> Path:
    path = foreign_checkpoint(folder)
    path.write_bytes(path.read_bytes()[:300])
    return path


FLOATS = np.zeros((48, 64), np.float32)
# What stands in for the source -> words of the sentence.
IMAGES = {
    "missing": (lambda folder: folder / "none.png", "does not exist"),
    "directory": (lambda folder: folder, "is a folder"),
    "text named .jpg": (file("text.jpg", b"this is a text"), "not an image"),
    "zero size": (file("empty.png", b""), "empty file"),
    "truncated JPEG": (cut("cut.jpg"), "damaged"),
    "truncated PNG": (cut("cut.png"), "damaged"),
    "not a regular file": (lambda folder: Path(os.devnull), "not a regular file"),
    "under 32 px": (picture("small.png", Image.fromarray(PICTURE[:31])), "64 x 31 pixels"),
    "NaN": (picture("nan.tiff", Image.fromarray(FLOATS + np.nan)), "NaN"),
    "infinite": (picture("inf.tiff", Image.fromarray(FLOATS + np.inf)), "infinite"),
    "floats of 0 to 255": (picture("float.tiff", Image.fromarray(FLOATS + 200)), "0..1 is expected"),
    "negative floats": (picture("negative.tiff", Image.fromarray(FLOATS - 1)), "0..1 is expected"),
    "32 bits": (picture("deep.tiff", Image.fromarray(FLOATS.astype(np.int32) - 5)), "16 bits"),
    "name with a newline": (lambda folder: folder / "new\nline.png", "does not exist"),
    "name too long": (lambda folder: folder / ("a" * 999), "cannot be read"),
}
WEIGHTS = {
    "no such weights": (lambda folder: "nothing", "nothing"),
    "folder as weights": (lambda folder: folder, "is a folder"),
    "text as weights": (file("text.pth", b"this is a text"), "text.pth"),
    "corrupt safetensors": (file("bad.safetensors", b"\x10\0\0\0\0\0\0\0{bad"), "damaged"),
    "empty weights": (file("empty.pth", b""), "empty.pth"),
    "foreign safetensors": (foreign_weights, "foreign.safetensors"),
    "foreign checkpoint": (foreign_checkpoint, "foreign.pth"),
    "cut checkpoint": (cut_checkpoint, "foreign.pth"),
}
OUT = {
    "a file as folder": (file("taken", b""), "is a file"),
    "below a file": (lambda folder: file("taken", b"")(folder) / "out", "cannot be written"),
    "unwritable": (lambda folder: Path("/proc/glunet"), "cannot be written"),
}
CASES = [
    *((name, "source", *case) for name, case in IMAGES.items()),
    *((name, "target", *case) for name, case in IMAGES.items() if name in ("missing", "truncated JPEG", "under 32 px")),
    *((name, "--weights", *case) for name, case in WEIGHTS.items()),
    *((name, "--out", *case) for name, case in OUT.items()),
    ("no such format", "--flow-format", lambda folder: "tiff", "is not one of"),
    ("no such device", "--device", lambda folder: "abacus", "abacus"),
    ("absent device", "--device", lambda folder: "cuda:99", "cuda:99"),
    ("beyond KITTI's range", "--flow-format", lambda folder: "png", "KITTI's PNG holds"),
    ("beyond memory", "memory", lambda folder: None, "make the images smaller"),
    ("full disk", "disk", lambda folder: None, "cannot be written"),
]


@pytest.mark.parametrize(("name", "what", "make", "expected"), CASES, ids=[f"{c[1]} {c[0]}" for c in CASES])
def test_bad_input(tmp_path, monkeypatch, capsys, caplog, name, what, make, expected):
    folder = tmp_path / "input"
    folder.mkdir()
    source = target = picture("good.png", Image.fromarray(PICTURE))(folder)
    given = make(folder)
    source = given if what == "source" else source
    target = given if what == "target" else target
    options = {"--out": tmp_path / "new" / "out"} | ({what: given} if what.startswith("--") else {})
    words = ["glunet", "match", source, target, *(word for option in options.items() for word in option)]
    monkeypatch.setattr(sys, "argv", [str(word) for word in words])
    if what == "--device":
        network = made_network(wide=True)
        weights = folder / "whole.safetensors"
        loading.save_weights(weights, network.state_dict(), network.config, {})
        monkeypatch.setattr(sys, "argv", [*sys.argv, "--weights", str(weights)])
    elif what != "--weights":
        made = matcher()
        if name == "beyond KITTI's range":
            flow = torch.full((1, 2, 48, 64), 600.0)
            monkeypatch.setattr(made.computation, "_finish", lambda *_: flow)
        monkeypatch.setattr(loading, "load", lambda *settings, **more: made)
    if what == "memory":
        monkeypatch.setattr(matcher_module, "available_bytes", lambda device: 1000)

    before = sorted(tmp_path.rglob("*"))
    caplog.set_level(logging.WARNING)
    with pytest.raises(SystemExit) as end, file_limit(3000 if what == "disk" else resource.RLIM_INFINITY):
        cli.main()
    printed, errors = capsys.readouterr()

    assert end.value.code == 2
    assert printed == ""
    assert errors.startswith("glunet: ")
    assert errors.endswith("\n")
    assert errors.count("\n") == 1
    assert expected in errors
    assert what not in ("source", "target") or f"The {what} image '" in errors
    assert "Traceback" not in errors
    assert not caplog.records
    assert sorted(tmp_path.rglob("*")) == before
