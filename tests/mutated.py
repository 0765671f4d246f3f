"""Put a mutated copy of a function or class in place, for as long as a check runs."""

import contextlib
import importlib
import inspect
import sys
import textwrap
from collections.abc import Iterator


def replaced(text: str, find: str, replace: str, where: str) -> str:
    """Replace ``find``, which must occur once in ``text``.

    Raises:
        ValueError: it does not, and the mutation would say nothing.
    """
    count = text.count(find)
    if count != 1:
        raise ValueError(
            f"{find!r} occurs {count} times in {where}: name a piece that occurs once"
        )
    return text.replace(find, replace)


@contextlib.contextmanager
def mutated(where: str, find: str, replace: str) -> Iterator[None]:
    """Replace a piece of the source of ``where``, such as ``"crlib.theory.name"``."""
    module_name, _, name = where.rpartition(".")
    module = importlib.import_module(module_name)
    original = getattr(module, name)
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(original)))
    code = compile(replaced(source, find, replace, where), f"<mutated {where}>", "exec")
    home = importlib.import_module(original.__module__)
    # Whoever imported it by its name calls the copy too.
    shown = [
        other
        for path, other in list(sys.modules.items())
        if path.startswith(("crlib", "tests")) and vars(other).get(name) is original
    ]
    try:
        # Among the names where it was written.
        exec(code, home.__dict__)
        for other in shown:
            setattr(other, name, getattr(home, name))
        yield
    finally:
        for other in (home, *shown):
            setattr(other, name, original)
