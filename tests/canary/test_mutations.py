"""The check of every theorem is green, and red when the theorem is made wrong."""

from pathlib import Path

import manuscript
import mutating
import pytest
from mutations import MUTATIONS, Mutation

ROOT = Path(__file__).parents[2]
BOOKS = {
    label: book for book in manuscript.chapters(ROOT) for label in mutating.labels(book)
}


@pytest.mark.parametrize("label", BOOKS)
def test_check_is_green(label: str) -> None:
    mutating.check(BOOKS[label], label)


@pytest.mark.parametrize("label", BOOKS)
def test_label_has_a_mutation(label: str) -> None:
    assert label in {m.label for m in MUTATIONS}, "add one to tests/canary/mutations.py"


@pytest.mark.parametrize(
    "mutation", MUTATIONS, ids=lambda m: f"{m.label}: {m.find} -> {m.replace}"
)
def test_mutation_is_caught(mutation: Mutation) -> None:
    assert mutation.label in BOOKS, "no chapter states this: take the mutation out"
    with pytest.raises(AssertionError):
        mutating.check(BOOKS[mutation.label], mutation.label, mutation)
