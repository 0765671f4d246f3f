"""Plant a mutation and run the check of a theorem."""

import contextlib

from book._tools import gates
from book._tools.manuscript import Manuscript, walk
from tests.mutated import mutated, replaced
from tests.units import Mutation

CHECKED = ("theorem", "proposition", "lemma", "corollary")


def labels(book: Manuscript) -> list[str]:
    """Return the labels of everything that a chapter states and must check."""
    return [
        block.label
        for block in walk(book.blocks)
        if block.name.startswith("prf:") and block.name.removeprefix("prf:") in CHECKED
    ]


def check(book: Manuscript, label: str, mutation: Mutation | None = None) -> None:
    """Run the setup cells and the check of ``label``, mutated or as they are.

    Raises:
        AssertionError: the check failed.
        ValueError: the text to replace does not occur exactly once.
    """
    setup = "\n\n".join(c.body for c in book.tagged("setup"))
    test = "\n\n".join(c.body for c in book.tagged(f"check-{label}"))
    if not test:
        raise ValueError(f"{book.path.name}: no cell is tagged check-{label}")
    library: contextlib.AbstractContextManager[None] = contextlib.nullcontext()
    if mutation:
        where, fault = mutation.where, (mutation.find, mutation.replace)
        if where == "setup":
            setup = replaced(setup, *fault, f"the setup of {label}")
        elif where == "check":
            test = replaced(test, *fault, f"the check of {label}")
        else:
            library = mutated(where, *fault)
    namespace = gates.fresh()
    with library:
        gates.run(setup, namespace, f"<setup of {book.path.name}>")
        gates.run(test, namespace, f"<check-{label}>")
