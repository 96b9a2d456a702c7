"""The version, here and nowhere else; CHANGELOG.md and CITATION.cff are checked against it."""

__version__ = "0.1.0"
