"""PNG with 16 bits a colour, three colours: the container of KITTI's flow, which Pillow would reduce to 8 bits.

Written from the PNG specification (W3C, third edition), sections 5, 7.2, 9 and 11.2. Only what such files need: no
palette, no interlacing.
"""

import struct
import zlib

import numpy as np

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIXEL = 6  # bytes
_KEYWORD = b"glunet"


def encode(pixels: np.ndarray, text: str = "") -> bytes:
    """A PNG file of H x W x 3 uint16; `text` (ASCII) goes into a tEXt chunk with the keyword "glunet"."""
    height, width, _ = pixels.shape
    rows = np.ascontiguousarray(pixels, ">u2").view(np.uint8).reshape(height, width * _PIXEL)
    filtered = np.empty((height, 1 + width * _PIXEL), np.uint8)
    filtered[:, 0] = 2  # filter "Up": each byte minus the one above, which suits smooth flow and is one subtraction
    filtered[0, 1:] = rows[0]
    np.subtract(rows[1:], rows[:-1], out=filtered[1:, 1:])
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0))]
    if text:
        chunks.append((b"tEXt", _KEYWORD + b"\0" + text.encode("ascii")))
    chunks += [(b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def decode(content: bytes) -> tuple[np.ndarray, str]:
    """H x W x 3 uint16 and the text of the "glunet" chunk ("" without one).

    Raises:
        ValueError: what is wrong with the file, in a few words.
    """
    if not content.startswith(_SIGNATURE):
        raise ValueError("it is not a PNG file")
    header, compressed, text = b"", [], ""
    for kind, data in _chunks(content):
        if kind == b"IHDR":
            header = data
        elif kind == b"IDAT":
            compressed.append(data)
        elif kind == b"tEXt" and data.startswith(_KEYWORD + b"\0"):
            text = data[len(_KEYWORD) + 1 :].decode("latin-1")
    if len(header) != 13:
        raise ValueError("it has no header")
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    if (bits, colour, interlaced) != (16, 2, 0):
        raise ValueError("it does not hold 16 bits of three colours without interlacing")
    expected = height * (1 + width * _PIXEL)
    if not expected or expected > 1 << 34:
        raise ValueError(f"its size of {width} x {height} is not plausible")
    try:
        raw = zlib.decompressobj().decompress(b"".join(compressed), expected)
    except zlib.error as error:
        raise ValueError("its pixels cannot be decompressed") from error
    if len(raw) != expected:
        raise ValueError("it ends early")
    lines = np.frombuffer(raw, np.uint8).reshape(height, 1 + width * _PIXEL)
    if lines[:, 0].max() > 4:
        raise ValueError("it uses an unknown filter")
    pixels = _unfiltered(lines[:, 0], lines[:, 1:].reshape(height, width, _PIXEL))
    return pixels.view(">u2").astype(np.uint16), text


def _chunks(content: bytes) -> list[tuple[bytes, bytes]]:
    chunks = []
    position = len(_SIGNATURE)
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        kind, end = content[position + 4 : position + 8], position + 8 + length
        if end + 4 > len(content):
            raise ValueError("it ends early")
        if struct.unpack_from(">I", content, end)[0] != zlib.crc32(content[position + 4 : end]):
            raise ValueError("a checksum does not match")
        chunks.append((kind, content[position + 8 : end]))
        if kind == b"IEND":
            break
        position = end + 4
    return chunks


def _unfiltered(filters: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Undoes the filters of all rows: uint8, H x W x 6.

    A pixel needs those to the left, above, and above left, so that pixels on one anti-diagonal do not need each other:
    numpy takes a diagonal at a time.
    """
    height, width, _ = stored.shape
    pixels = np.zeros(
        (height + 1, width + 1, _PIXEL), np.int16
    )  # with the zeros that stand left of and above the image
    for diagonal in range(height + width - 1):
        y = np.arange(max(0, diagonal - width + 1), min(height, diagonal + 1))
        x = diagonal - y
        left, up, corner = pixels[y + 1, x], pixels[y, x + 1], pixels[y, x]
        estimate = left + up - corner
        to_left, to_up, to_corner = abs(estimate - left), abs(estimate - up), abs(estimate - corner)
        paeth = np.where((to_left <= to_up) & (to_left <= to_corner), left, np.where(to_up <= to_corner, up, corner))
        predicted = np.choose(filters[y][:, None], (np.int16(0), left, up, (left + up) >> 1, paeth))
        pixels[y + 1, x + 1] = (stored[y, x] + predicted) & 255
    return pixels[1:, 1:].astype(np.uint8)
