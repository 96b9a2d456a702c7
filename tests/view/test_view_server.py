"""`glunet view`: who may ask, what may come in, and how it begins and ends."""

import contextlib
import io
import signal
import socket
import struct
import subprocess
import sys
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi")
pytest.importorskip("httpx")
pytest.importorskip("python_multipart")

import anyio
import httpx
import torch

from glunet import cli, loading
from glunet.errors import GlunetError
from glunet.flow.geometry import frame_flow_to_source
from glunet.match import Match, Provenance
from glunet.view import server
from glunet.view.server import listen, make_app
from viewed import calibration, photograph

PORT = 4321
OWN = {"Origin": f"http://127.0.0.1:{PORT}"}


class Still:
    """In the place of a matcher: nothing has moved."""

    def match(self, source, target):
        height, width = target.shape[-2:]
        size = tuple(source.shape[-2:])
        flow = frame_flow_to_source(torch.zeros(1, 2, height, width), size)[0].permute(1, 2, 0).numpy()
        pictures = tuple((image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8) for image in (source, target))
        backward = frame_flow_to_source(torch.zeros(1, 2, *size), (height, width))[0].permute(1, 2, 0).numpy()
        return Match(flow, size, Provenance("still"), backward, calibration(), pictures=pictures)


def png(size: tuple[int, int] = (40, 60), seed: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(photograph(size, seed)).save(buffer, "PNG")
    return buffer.getvalue()


def ask(app, method: str, path: str, host: str = f"127.0.0.1:{PORT}", **words) -> httpx.Response:
    """One request, without a network."""

    async def send() -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://{host}") as client:
            return await client.request(method, path, **words)

    return anyio.run(send)


@pytest.fixture
def app():
    return make_app(Still, PORT, max_bytes=50_000, max_pixels=10_000)


def files(source: bytes = png(), target: bytes = png(seed=1)) -> dict:
    return {"source": ("a.png", source), "target": ("b.png", target)}


def test_a_pair_comes_back_as_a_payload(app):
    answer = ask(app, "POST", "/match", files=files(), headers=OWN)
    assert answer.status_code == 200
    told = answer.json()
    assert told["names"] == {"source": "a.png", "target": "b.png"}
    assert told["sizes"]["target"] == [60, 40]


def test_the_page_opens_with_a_match_or_without():
    page = ask(make_app(Still, PORT, {"here": "</script>"}), "GET", "/")
    assert 'id="match">{"here":"\\u003c/script>"}<' in page.text
    assert ask(make_app(Still, PORT), "GET", "/page").text.count('id="match">null<') == 1


@pytest.mark.parametrize(
    "host", ["evil.example", f"evil.example:{PORT}", "127.0.0.1", "127.0.0.1:1", "localhost.evil:4321"]
)
def test_names_that_were_made_to_lead_here_are_refused(app, host):
    for method, path in (("GET", "/"), ("POST", "/match")):
        answer = ask(app, method, path, host=host, headers=OWN)
        assert answer.status_code == 403
        assert "127.0.0.1:4321 only" in answer.json()["error"]
    assert ask(app, "GET", "/", host=f"localhost:{PORT}").status_code == 200


@pytest.mark.parametrize(
    "origin", [None, "null", "http://evil.example", "https://127.0.0.1:4321", "http://127.0.0.1:4322"]
)
def test_pages_elsewhere_cannot_ask(app, origin):
    answer = ask(app, "POST", "/match", files=files(), headers={} if origin is None else {"Origin": origin})
    assert answer.status_code == 403
    assert "own page" in answer.json()["error"]


def pixels_announced(width: int, height: int) -> bytes:
    """A PNG of which there is only the head."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = struct.pack(">I", 100) + b"IDAT"  # announced as well
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + head + struct.pack(">I", zlib.crc32(head)) + data


@pytest.mark.parametrize(
    ("given", "status", "says"),
    [
        (files(source=b"no image"), 422, "source 'a.png' is not an image"),
        (files(target=png()[:400]), 422, "target image 'b.png' is damaged"),
        (files(target=b""), 422, "target 'b.png' is not an image"),
        (files(source=png((20, 60))), 422, "at least 32"),
        (files(source=b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n"), 422, "not an image"),
        (files(source=pixels_announced(60_000, 60_000)), 413, "far too many pixels"),
        (files(source=pixels_announced(9_000, 9_000)), 413, "9000 x 9000 pixels"),
        (files(source=png() + bytes(60_000)), 413, "0.1 MB, but at most 0.05 MB"),
        ({"source": ("a.png", png())}, 400, "Two images are needed"),
        ({"source": ("a.png", png()), "target": ("b", b""), "more": ("c", b"")}, 400, "cannot be read"),
    ],
)
def test_what_cannot_be_used_is_told_in_a_sentence(app, given, status, says):
    answer = ask(app, "POST", "/match", files=given, headers=OWN)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert ask(app, "POST", "/match", files=files(), headers=OWN).status_code == 200  # and it goes on


def test_an_upload_says_how_long_it_is(app):
    async def parts():
        yield b"--x\r\n"

    answer = ask(
        app, "POST", "/match", content=parts(), headers=OWN | {"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code == 411


def test_words_in_the_place_of_files(app):
    assert ask(app, "POST", "/match", data={"source": "a", "target": "b"}, headers=OWN).status_code == 400


def test_a_failure_that_nobody_foresaw(caplog):
    def broken():
        raise RuntimeError("out of paper")

    answer = ask(make_app(broken, PORT), "POST", "/match", files=files(), headers=OWN)
    assert answer.status_code == 500
    assert "the terminal says more" in answer.json()["error"]
    assert "out of paper" in caplog.text


def test_one_match_at_a_time():
    begun, go_on = threading.Event(), threading.Event()

    def slow():
        begun.set()
        assert go_on.wait(20)
        return Still()

    app = make_app(slow, PORT)

    async def both() -> tuple[httpx.Response, httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url=f"http://127.0.0.1:{PORT}") as client:
            answers = []

            async def first() -> None:
                answers.append(await client.post("/match", files=files(), headers=OWN))

            async with anyio.create_task_group() as group:
                group.start_soon(first)
                await anyio.to_thread.run_sync(begun.wait)
                second = await client.post("/match", files=files(), headers=OWN)
                go_on.set()
            return answers[0], second

    first, second = anyio.run(both)
    assert first.status_code == 200
    assert second.status_code == 503
    assert "Another pair" in second.json()["error"]


# Beginning and end


def test_only_loopback_is_listened_on():
    with listen(0) as door:
        assert door.getsockname()[0] == "127.0.0.1"


def test_a_port_in_use_is_said(monkeypatch, capsys):
    with listen(0) as door:
        port = door.getsockname()[1]
        monkeypatch.setattr(sys, "argv", ["glunet", "view", "--port", str(port)])
        with pytest.raises(SystemExit) as end:
            cli.main()
    assert end.value.code == 2
    printed, errors = capsys.readouterr()
    assert printed == ""
    assert errors.startswith(f"glunet: Port {port} cannot be listened on (Address already in use): choose another")
    with pytest.raises(GlunetError, match="1 to 65535"):
        listen(70_000)


@pytest.mark.parametrize("module", ["fastapi", "uvicorn", "python_multipart"])
def test_a_missing_extra_is_named(monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(GlunetError, match=rf"{module} is missing.*pip install 'glunet\[view\]'"):
        make_app(Still, PORT)


def test_two_files_are_matched_before_the_page_opens(monkeypatch, capsys, tmp_path):
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(png((48, 64), len(name)))
    shown = []

    class Server:
        def run(self, sockets):
            assert sockets[0].getsockname()[0] == "127.0.0.1"
            raise KeyboardInterrupt

    def make_server(matcher, port, payload, longest):
        shown.append(payload)
        return Server()

    monkeypatch.setattr(loading, "load", lambda name, device, **settings: Still())
    monkeypatch.setattr(server, "make_server", make_server)
    words = ["glunet", "view", str(tmp_path / "a.png"), str(tmp_path / "b.png"), "--port", "0", "--longest", "64"]
    monkeypatch.setattr(sys, "argv", words)
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    assert shown[0]["names"] == {"source": "a.png", "target": "b.png"}
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith("http://127.0.0.1:")
    assert said[1] == "ended"


def test_one_image_is_not_two(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["glunet", "view", "a.png"])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert end.value.code == 2
    assert "takes two" in capsys.readouterr().err


@contextlib.contextmanager
def killed(process):
    """Leaving `Popen` waits for the process to end: after a failed assertion that would be for ever."""
    try:
        yield
    finally:
        process.kill()


BUSY = """
import sys, threading, time
from glunet import cli
from glunet import loading

def slow(name, device, **settings):
    print("matching", flush=True)
    time.sleep(60)

loading.load = slow
sys.argv = ["glunet", "view", "--port", "0"]
cli.main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals are otherwise there")
def test_control_c_ends_it_during_a_match():
    with (
        subprocess.Popen(
            [sys.executable, "-c", BUSY], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as run,
        killed(run),
    ):
        assert run.stdout is not None
        host = run.stdout.readline().split("http://")[1].split("/")[0]
        answers = []

        def send() -> None:
            words = {"files": files(), "headers": {"Origin": f"http://{host}"}, "timeout": 50, "trust_env": False}
            answers.append(httpx.post(f"http://{host}/match", **words))

        client = threading.Thread(target=send)
        client.start()
        assert run.stdout.readline() == "matching\n"
        run.send_signal(signal.SIGINT)
        rest, errors = run.communicate(timeout=20)
        client.join(20)
    assert (run.returncode, rest, errors) == (0, "ended\n", "")
    assert answers[0].status_code == 503
    assert "was ended" in answers[0].json()["error"]


@pytest.mark.skipif(sys.platform == "win32", reason="signals are otherwise there")
def test_control_c_ends_it(tmp_path):
    command = [sys.executable, "-m", "glunet", "view", "--port", "0"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process, killed(process):
        assert process.stdout is not None
        said = process.stdout.readline()
        port = int(said.split("127.0.0.1:")[1].split("/")[0])
        # Listening begins before the server runs; an answer says that it does.
        assert httpx.get(f"http://127.0.0.1:{port}/", timeout=30, trust_env=False).status_code == 200
        with socket.socket() as other, pytest.raises(OSError):  # noqa: PT011 - whichever way it is refused
            other.connect(("127.0.0.2", port))
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "ended\n", "")
    assert not list(Path(tmp_path).iterdir())
