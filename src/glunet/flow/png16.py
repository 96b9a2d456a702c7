"""PNG with 16 bits a colour, three colours: the container of KITTI's flow. Pixels by OpenCV, text by Pillow.

Pillow would reduce the pixels to 8 bits, and OpenCV passes over text and over what is broken.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image

_KEYWORD = "glunet"
_HEADER = 33  # bytes of a PNG file up to the end of its first chunk
_LARGEST = 1 << 30  # pixels that are plausible


def encode(pixels: np.ndarray, text: str = "") -> bytes:
    """A PNG file of H x W x 3 uint16; `text` (ASCII) goes into a tEXt chunk with the keyword "glunet"."""
    import cv2

    content = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]))[1].tobytes()
    if not text:
        return content
    chunk = b"tEXt" + f"{_KEYWORD}\0{text}".encode("ascii")
    chunk = struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return content[:_HEADER] + chunk + content[_HEADER:]


def decode(content: bytes) -> tuple[np.ndarray, str]:
    """H x W x 3 uint16 and the text of the "glunet" chunk ("" without one).

    Raises:
        ValueError: what is wrong with the file, in a few words.
    """
    import cv2

    if not content.startswith(b"\x89PNG\r\n\x1a\n") or len(content) < _HEADER:
        raise ValueError("it is not a PNG file")
    width, height, bits, colours = struct.unpack_from(">IIBB", content, 16)
    if (bits, colours) != (16, 2):
        raise ValueError("it does not hold 16 bits of three colours")
    if not 0 < width * height <= _LARGEST:
        raise ValueError(f"its size of {width} x {height} is not plausible")
    try:
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            picture.verify()  # checksums
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            picture.load()  # whether all pixels are there
            text = picture.info.get(_KEYWORD, "")
    except Exception as error:  # broken headers make Pillow raise nearly anything
        raise ValueError(f"it is broken ({error})") from error
    pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape != (height, width, 3):
        raise ValueError("OpenCV cannot read it")
    return np.ascontiguousarray(pixels[..., ::-1]), text
