"""`glunet view`: the page of a match, and a place to drop two images, served to this machine alone.

Only 127.0.0.1 is listened on. A page elsewhere can neither read (the Host header has to name this server, so that a
name that is made to lead here does not help) nor ask (the Origin header of a POST has to be this server). What comes in
is bounded in bytes before it is read, and in pixels before it is decoded. One match at a time is computed. Uploads stay
in memory or in the system's temporary folder, and are gone with the request.
"""

import asyncio
import io
import logging
import socket
import threading
import warnings
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from importlib import import_module
from types import FrameType
from typing import TYPE_CHECKING, Any

from PIL import Image

from glunet.errors import GlunetError, needed
from glunet.flow.geometry import resize_area
from glunet.images.folders import smaller_size
from glunet.images.page import LONGEST, build, payload
from glunet.images.reading import ImageLike, load_image

if TYPE_CHECKING:
    import uvicorn
    from fastapi import FastAPI, Request, Response

    from glunet.matcher import Matcher

logger = logging.getLogger(__name__)

Named = tuple[str, ImageLike]
_THREAD = "glunet view: match"

HOST = "127.0.0.1"
PORT = 8765
BYTES = 64_000_000  # of an upload, both images together
PIXELS = 40_000_000  # of an image
# What browsers and cameras make; Pillow's decoders for the rest (one of them calls another program) stay out of reach.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "AVIF")


class Refused(GlunetError):
    """An upload that is refused, with the HTTP status that says so."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def listen(port: int = PORT) -> socket.socket:
    """A socket of 127.0.0.1; port 0 takes any that is free.

    Raises:
        GlunetError: if the port is taken, not allowed or none.
    """
    if not 0 <= port <= 65535:
        raise GlunetError(f"Port {port} came, but a port is 1 to 65535, or 0 for any that is free.")
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((HOST, port))
        made.listen()
    except OSError as error:
        made.close()
        raise GlunetError(
            f"Port {port} cannot be listened on ({error.strerror or error}): choose another with --port, or 0 for any "
            "that is free."
        ) from error
    return made


def make_server(
    matcher: "Callable[[], Matcher]", port: int, shown: dict[str, Any] | None = None, **bounds: int
) -> "uvicorn.Server":
    """A server that is ready to run: `server.run(sockets=[listen(port)])`; arguments as for `make_app`."""
    _, uvicorn = _fastapi()
    app = make_app(matcher, port, shown, **bounds)
    settings = uvicorn.Config(
        app, log_level="warning", lifespan="off", server_header=False, timeout_graceful_shutdown=5
    )
    server = uvicorn.Server(settings)
    leave = server.handle_exit

    def answer_and_leave(number: int, frame: FrameType | None) -> None:
        """Who waits for a match is notified; otherwise the server would wait for it as well."""
        for settle in list(app.state.waiting):
            settle()
        leave(number, frame)

    server.handle_exit = answer_and_leave
    return server


def still_matching() -> bool:
    """Whether a match goes on in its thread, which nothing can interrupt, after the server has ended."""
    return any(thread.name == _THREAD for thread in threading.enumerate())


def make_app(
    matcher: "Callable[[], Matcher]",
    port: int,
    shown: dict[str, Any] | None = None,
    max_bytes: int = BYTES,
    max_pixels: int = PIXELS,
    longest: int = LONGEST,
) -> "FastAPI":
    """The application.

    Args:
        matcher: called for each match, which is how weights can be loaded at the first.
        port: that the server listens on: Host and Origin have to name it.
        shown: the payload of a match to open with.
        max_bytes, max_pixels: bounds of an upload, and of each of its images.
        longest: images whose longer side has more pixels are matched reduced to it.

    Raises:
        GlunetError: if FastAPI is missing.
    """
    fastapi, _ = _fastapi()
    from fastapi import Request
    from fastapi.exceptions import StarletteHTTPException
    from fastapi.responses import HTMLResponse, JSONResponse, Response

    app = fastapi.FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    hosts = {f"{name}:{port}" for name in (HOST, "localhost")}
    turn = threading.Lock()
    app.state.waiting = set()

    app.middleware("http")(partial(_guarded, hosts, port))

    @app.get("/")
    def index() -> HTMLResponse:
        return HTMLResponse(build("view", shown, {"bytes": max_bytes}))

    @app.get("/page")
    def page() -> HTMLResponse:
        """The page that stands alone, without a match: what "Save this page" puts one into."""
        return HTMLResponse(build("match", None))

    @app.post("/match")
    async def match(request: Request) -> Response:
        try:
            pair = await _uploads(request, max_bytes)
            if not turn.acquire(blocking=False):
                raise Refused(503, "Another pair is being matched: try again when it is done.")
            content = await _aside(
                lambda: _match_uploads(matcher, pair, max_pixels, longest), turn.release, app.state.waiting
            )
        except Refused as error:
            return _refusal(error.status, str(error))
        except GlunetError as error:
            return _refusal(422, str(error))
        except StarletteHTTPException as error:  # a form that cannot be parsed
            return _refusal(error.status_code, f"The upload cannot be read ({error.detail}): send it again.")
        except Exception:
            logger.exception("a match failed")
            return _refusal(500, "The match failed in a way that was not foreseen: the terminal says more.")
        return JSONResponse(content)

    return app


def _refusal(status: int, sentence: str) -> "Response":
    from fastapi.responses import JSONResponse

    return JSONResponse({"error": sentence}, status)


async def _guarded(
    hosts: set[str], port: int, request: "Request", proceed: "Callable[[Request], Awaitable[Response]]"
) -> "Response":
    """The answer, to the server's own page only, with headers that keep it there."""
    origins = {f"http://{host}" for host in hosts}
    if request.headers.get("host", "") not in hosts:
        answer = _refusal(403, f"This server answers to {HOST}:{port} only.")
    elif request.method not in ("GET", "HEAD") and request.headers.get("origin", "") not in origins:
        answer = _refusal(403, "This server takes images from its own page only.")
    else:
        answer = await proceed(request)
    answer.headers["X-Content-Type-Options"] = "nosniff"
    answer.headers["Content-Security-Policy"] = "frame-ancestors 'none'"
    answer.headers["Cross-Origin-Resource-Policy"] = "same-origin"
    answer.headers["Cache-Control"] = "no-store"
    return answer


async def _uploads(request: "Request", max_bytes: int) -> list[tuple[str, bytes]]:
    """Source and target of a request, name and content each.

    Raises:
        Refused: too many bytes, or other than two files.
    """
    _check_length(request.headers.get("content-length"), max_bytes)
    async with request.form(max_files=2, max_fields=2) as form:
        files = [form.get(role) for role in ("source", "target")]
        if any(file is None or isinstance(file, str) for file in files):
            raise Refused(400, "Two images are needed: a source and a target.")
        return [(file.filename or "image", await file.read()) for file in files]  # type: ignore[union-attr]


def match_pair(matcher: "Matcher", pair: Sequence[Named], longest: int = LONGEST) -> dict[str, Any]:
    """The payload of a match.

    Args:
        pair: source and target, each with the name that the page calls it by.
        longest: images whose longer side has more pixels are matched reduced to it; numbers stay the original's.

    Raises:
        GlunetError: an image that cannot be used.
    """
    reduced, sizes = [], []
    for (_, image), role in zip(pair, ("source", "target"), strict=True):
        pixels = load_image(image, role) / 255
        sizes.append((pixels.shape[-2], pixels.shape[-1]))
        reduced.append(resize_area(pixels[None], smaller_size(sizes[-1], longest))[0].clamp(0, 1))
    return payload(matcher.match(*reduced), (pair[0][0], pair[1][0]), (sizes[0], sizes[1]), longest)


@contextmanager
def open_upload(content: bytes, name: str, role: str, max_pixels: int) -> Iterator[Image.Image]:
    """An uploaded image, opened but not decoded.

    Raises:
        Refused: more pixels than `max_pixels`.
        GlunetError: not an image.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # bounded below
            picture = Image.open(io.BytesIO(content), formats=_formats())
    except Image.DecompressionBombError as error:
        raise Refused(413, _too_many(role, name, "far too many", max_pixels)) from error
    except Exception as error:  # broken headers make Pillow raise nearly anything
        raise GlunetError(
            f"The {role} '{name}' is not an image that can be read here: use PNG, JPEG, WebP or TIFF."
        ) from error
    with picture:
        if picture.width * picture.height > max_pixels:
            raise Refused(413, _too_many(role, name, f"{picture.width} x {picture.height}", max_pixels))
        picture.filename = name  # how messages call it
        yield picture


def _match_uploads(
    matcher: "Callable[[], Matcher]", uploads: Sequence[tuple[str, bytes]], max_pixels: int, longest: int
) -> dict[str, Any]:
    (source, there), (target, here) = uploads
    with (
        open_upload(there, source, "source", max_pixels) as one,
        open_upload(here, target, "target", max_pixels) as two,
    ):
        return match_pair(matcher(), ((source, one), (target, two)), longest)


async def _aside(
    work: Callable[[], dict[str, Any]], after: Callable[[], None], waiting: set[Callable[[], None]]
) -> dict[str, Any]:
    """`work`, then `after`, in a thread that does not keep the program from ending; also when nobody waits any more.

    As long as it is waited for, `waiting` holds a function that ends the waiting.
    """
    loop = asyncio.get_running_loop()
    done: asyncio.Future[dict[str, Any]] = loop.create_future()

    def settle(result: dict[str, Any], error: BaseException | None) -> None:
        if not done.done():
            done.set_result(result) if error is None else done.set_exception(error)

    def hand_on(result: dict[str, Any], error: BaseException | None) -> None:
        try:
            loop.call_soon_threadsafe(settle, result, error)
        except RuntimeError:
            logger.debug("the server has ended meanwhile")

    def run() -> None:
        result: dict[str, Any] = {}
        error = None
        try:
            result = work()
        except BaseException as raised:  # for who waits
            error = raised
        after()
        hand_on(result, error)

    def give_up() -> None:
        hand_on({}, Refused(503, "The server was ended before the match was done."))

    threading.Thread(target=run, name=_THREAD, daemon=True).start()
    waiting.add(give_up)
    try:
        return await done
    finally:
        waiting.discard(give_up)


def _check_length(length: str | None, max_bytes: int) -> None:
    """The server hands on no more bytes than the header tells, so that a look at the header is enough."""
    if length is None or not length.isdigit():
        raise Refused(411, "The upload does not say how long it is: send it in one piece.")
    if int(length) > max_bytes:
        raise Refused(413, f"The upload has {int(length) / 1e6:.1f} MB, but at most {max_bytes / 1e6:g} MB are taken.")


def _too_many(role: str, name: str, count: str, max_pixels: int) -> str:
    return f"The {role} '{name}' has {count} pixels, but at most {max_pixels / 1e6:g} million are taken: reduce it."


def _formats() -> list[str]:
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]  # Pillow can be built without some


def _fastapi() -> tuple[Any, Any]:
    with needed("glunet view needs FastAPI", "view"):
        import fastapi
        import uvicorn

        import_module("python_multipart")  # which FastAPI looks for when it needs it
    return fastapi, uvicorn
