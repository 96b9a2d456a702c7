"""How much memory a match needs, measured, and how much there is."""

import ctypes
import math
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from glunet.errors import GlunetError
from glunet.flow.geometry import Size
from glunet.inference.frames import hnet_size

# Bytes beside the network itself: fixed, for each pixel of the H-Net's frame that is decoded at once, for each that is
# kept between tiles (features of both images, flows), and for each pixel of the two images. With torch 2.13 on a CPU
# the peak lay 0.32 GB (520 x 520), 0.92 GB (1000 x 1000), 1.86 GB (2000 x 1040) and, for a source of 4000 x 4000 and a
# target of 520 x 520, 0.52 GB above what was taken before (a search adds up to 0.1 GB); these figures say more.
_FIXED, _DECODED, _KEPT, _IMAGE = 200_000_000, 900, 130, 60


def needed_bytes(
    source_size: Size, target_size: Size, pairs: int = 1, tile: int | None = None, frame: Size | None = None
) -> int:
    """An upper estimate of the memory that matching takes at its peak, for sizes (height, width).

    Args:
        pairs: decoded at once.
        tile: side of the square of the frame that is decoded at once, pixels, with its margin; None for the whole.
        frame: that is matched in; by default the target's own (`glunet.inference.frames.hnet_size`).
    """
    pixels = math.prod(frame or hnet_size(*target_size))
    images = math.prod(source_size) + math.prod(target_size)
    at_once = _DECODED * pixels if tile is None else _DECODED * min(tile**2, pixels) + _KEPT * pixels
    return _FIXED + pairs * (at_once + _IMAGE * images)


def too_large(source_size: Size, target_size: Size, pairs: int, limit: str, frame: Size | None = None) -> GlunetError:
    """The sentence for pairs that need more than there is; `limit` says how much that is, and by whose word."""
    (source_height, source_width), (height, width) = source_size, target_size
    what = f"{pairs} pairs of a target" if pairs > 1 else "A target"
    needed = human(needed_bytes(source_size, target_size, pairs, frame=frame))
    return GlunetError(
        f"{what} of {width} x {height} and a source of {source_width} x {source_height} pixels need about {needed} of "
        f"memory, but {limit}: make the images smaller, above all the target."
    )


@contextmanager
def out_of_memory_told(
    device: torch.device, source_size: Size, target_size: Size, pairs: int, frame: Size
) -> Iterator[None]:
    """Memory that runs out all the same becomes a `too_large`."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise too_large(source_size, target_size, pairs, f"no more is available on {device}", frame) from error
    except RuntimeError as error:
        if "not enough memory" not in str(error) and "can't allocate memory" not in str(error):
            raise
        raise too_large(source_size, target_size, pairs, f"no more is available on {device}", frame) from error


def available_bytes(device: torch.device) -> int | None:
    """Memory that can be had on the device now; None where that is unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        reusable = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return free + reusable
    limits = [limit for limit in (_system(), _control_group()) if limit is not None]
    return min(limits, default=None)


def give_back() -> None:
    """What was freed goes back to the system, where the C library (glibc) would keep it; some milliseconds.

    It keeps the large blocks of a network that was let go, in pieces that a match's own blocks do not fit in.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(ctypes.c_size_t(0))


def keep() -> bool:
    """From here on this process keeps what it frees, where the C library (glibc) allows that; whether it does.

    glibc has every block of more than 32 MB from the system anew, which clears it page by page, and training takes and
    frees the same blocks at every step. The memory is gone for other programs until the process ends: a command's
    choice, and not a library's.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    # The numbers of M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD in malloc.h; each answers whether it was taken.
    asked = ((-3, 1 << 30), (-1, (1 << 31) - 1), (-2, 1 << 28))
    return mallopt is not None and all([mallopt(name, value) == 1 for name, value in asked])


def human(count: float) -> str:
    """Bytes for people: 1.2 GB."""
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.0f} MB"


def _system() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    if sys.platform == "win32":
        return _windows()
    try:  # all there is: other systems do not tell what is free without a package of its own
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None


def _control_group() -> int | None:
    """What a container's limit leaves, cgroup version 2 and 1."""
    for limit_file, used_file, cache_key, stat_file in (
        ("memory.max", "memory.current", "inactive_file", "memory.stat"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file", "memory/memory.stat"),
    ):
        root = Path("/sys/fs/cgroup")
        try:
            limit = (root / limit_file).read_text().strip()
            if limit == "max":
                continue
            used = int((root / used_file).read_text())
            statistics = dict(line.split() for line in (root / stat_file).read_text().splitlines())
        except (OSError, ValueError):
            continue
        # Cached files are given up when memory is asked for.
        return max(0, int(limit) - used + int(statistics.get(cache_key, 0)))
    return None


def _windows() -> int | None:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *((name, ctypes.c_ulonglong) for name in ("total", "free", "t", "f", "v", "w", "x")),
        )

    status = Status(length=ctypes.sizeof(Status))
    kernel = getattr(ctypes, "windll").kernel32  # noqa: B009 - the attribute exists on Windows only
    return int(status.free) if kernel.GlobalMemoryStatusEx(ctypes.byref(status)) else None
