"""What is said where an extra's library is missing."""

import sys

import pytest

from glunet.errors import GlunetError, needed


def test_a_missing_library_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    told = r"^Video needs PyAV \(av is missing\): pip install 'glunet\[video\]'\.$"
    with pytest.raises(GlunetError, match=told), needed("Video needs PyAV", "video"):
        import av  # noqa: F401


def test_other_errors_pass() -> None:
    with pytest.raises(ZeroDivisionError), needed("Video needs PyAV", "video"):
        1 / 0  # noqa: B018
