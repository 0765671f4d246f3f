"""A chapter gives the same answers with the instructions of another processor."""

from book._tools import processors

CHAPTER = "ch01"
DEPENDS = ("crlib", "book/ch01_same_accuracy.md", "requirements.lock")


def test_a_chapter_passes_on_other_processors() -> None:
    problems = processors.faults([CHAPTER])
    assert not problems, "\n".join(problems)
