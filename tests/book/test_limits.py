"""A chapter by itself runs in under two minutes and in modest memory."""

import json
from pathlib import Path

from tests.book import pages

BUILD = pages.ROOT / "_build"


def test_seconds() -> None:
    costs = json.loads((BUILD / "seconds.json").read_text())
    seconds = {Path(name).name: value for name, value in costs.items()}
    assert {page.stem for page in pages.chapters()} <= set(seconds)
    # They ran two at once. One that took too long runs again while nothing else does.
    for name in [name for name in seconds if seconds[name] >= pages.CHAPTER_SECONDS]:
        print(f"{name} took {seconds[name]:.0f} s beside another")
        seconds[name] = pages.seconds_alone(pages.ROOT / "book" / f"{name}.md")
    assert max(seconds.values()) < pages.CHAPTER_SECONDS, seconds


def test_memory() -> None:
    # A process that computes with torch takes some 300 MB: less, and none was counted.
    megabytes = float((BUILD / "peak.txt").read_text())
    assert 300 < megabytes < pages.CHAPTER_MEGABYTES
