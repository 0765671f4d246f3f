"""Plant a mutation and run the check of a theorem."""

import contextlib
import importlib
import inspect
import textwrap
from collections.abc import Iterator

import chapter_code
from manuscript import Manuscript, walk
from mutations import Mutation

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
    if mutation and mutation.where == "setup":
        setup = _replace(setup, mutation)
    elif mutation and mutation.where == "check":
        test = _replace(test, mutation)
    elif mutation:
        library = _patched(mutation)
    namespace = chapter_code.fresh()
    with library:
        chapter_code.run(setup, namespace, f"<setup of {book.path.name}>")
        chapter_code.run(test, namespace, f"<check-{label}>")


def _replace(text: str, mutation: Mutation) -> str:
    count = text.count(mutation.find)
    if count != 1:
        raise ValueError(
            f"{mutation.label}: {mutation.find!r} occurs {count} times in"
            f" {mutation.where}: name a piece that occurs once"
        )
    return text.replace(mutation.find, mutation.replace)


@contextlib.contextmanager
def _patched(mutation: Mutation) -> Iterator[None]:
    """Replace a crlib function by a mutated copy, for as long as the check runs."""
    module_name, _, name = mutation.where.rpartition(".")
    module = importlib.import_module(module_name)
    original = getattr(module, name)
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(original)))
    code = compile(_replace(source, mutation), f"<mutated {mutation.where}>", "exec")
    home = importlib.import_module(original.__module__)
    try:
        # Among the names where it was written, so that its neighbours call the copy
        # too; a package that shows the function under its own name shows the copy.
        exec(code, home.__dict__)
        setattr(module, name, getattr(home, name))
        yield
    finally:
        setattr(home, name, original)
        setattr(module, name, original)
