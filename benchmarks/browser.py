"""Debian's Chromium without a window, by Playwright: for the tests of the page, and for the pictures of it in docs/."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from playwright.sync_api import Browser

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def missing() -> str:
    """Why there is no browser here; "" where there is one."""
    try:
        import playwright.sync_api  # noqa: F401
    except ImportError:
        return "playwright is not installed"
    return "" if _executable() else f"no browser is installed ({NAMES[0]} of Debian's packages would do)"


@contextmanager
def browser() -> Iterator["Browser"]:
    """A browser; its pages may not outlive the context."""
    from playwright.sync_api import sync_playwright

    # Chromium's sandbox does not start for root.
    words = ["--no-sandbox"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    with sync_playwright() as player:
        opened = player.chromium.launch(executable_path=_executable(), args=[*words, "--hide-scrollbars"])
        try:
            yield opened
        finally:
            opened.close()


def _executable() -> str | None:
    return next((found for name in NAMES if (found := shutil.which(name))), None)
