"""Writes the tables of docs/data.md from the photographs' manifest: how many came from where, under which licence.

    .venv/bin/python tools/photo_origins.py ../shared/photos/manifest.csv docs/data.md

Only what stands between the page's two markers is replaced.
"""

from __future__ import annotations

import csv
import re
import sys
from collections import Counter
from pathlib import Path

BEGIN, END = "<!-- made by tools/photo_origins.py: begin -->", "<!-- made by tools/photo_origins.py: end -->"

RESEARCH = "for research or non-commercial use"
FREE = "free for the photographs themselves"
UNKNOWN = "not known for each photograph"


def kind(note: str) -> str:
    """One of three, from the manifest's licence note.

    MIT on a repository of pictures from the web says nothing about the pictures: what is doubtful is "not known".
    """
    if re.search(r"research|non-commercial|BY-NC|ImageNet", note):
        return RESEARCH
    if re.search(r"No licence file|not checked|not verified|not stated|unknown|unclear", note):
        return UNKNOWN
    free = (
        r"^CC0|^CC BY|^(Repo )?CC BY|public domain|DFSG|Unsplash licence|open licences|free licences|free to use|"
        r"CC-compatible|by the authors?\b"
    )
    return FREE if re.search(free, note) else UNKNOWN


def tables(rows: list[dict[str, str]]) -> str:
    """Two tables in Markdown: by kind of licence, and by source."""
    kinds = Counter(kind(row["licence_note"]) for row in rows)
    validation = sum(row["split"] == "val" for row in rows)
    lines = [
        f"{len(rows):,} photographs: {len(rows) - validation:,} to train, {validation:,} to validate.",
        "",
        "| licence, as far as its source tells | photographs | share |",
        "| --- | ---: | ---: |",
    ]
    lines += [f"| {name} | {kinds[name]:,} | {kinds[name] / len(rows):.0%} |" for name in (RESEARCH, UNKNOWN, FREE)]
    lines += ["", "| source | photographs | counted as | licence note |", "| --- | ---: | --- | --- |"]
    sources = Counter((row["source_repo"], row["licence_note"]) for row in rows)
    for (source, note), count in sorted(sources.items(), key=lambda item: (-item[1], item[0])):
        lines.append(f"| {source} | {count:,} | {kind(note)} | {note.replace('|', '/')} |")
    return "\n".join(lines)


def main(manifest: Path, page: Path) -> None:
    """Replace what stands between the page's markers."""
    with manifest.open(newline="") as file:
        made = tables(list(csv.DictReader(file)))
    before, rest = page.read_text().split(BEGIN)
    page.write_text(f"{before}{BEGIN}\n\n{made}\n\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
