"""Put a mutated copy of a crlib function in place, for as long as a check runs."""

import contextlib
import importlib
import inspect
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
    try:
        # Among the names where it was written, so that its neighbours call the copy
        # too; a package that shows the function under its own name shows the copy.
        exec(code, home.__dict__)
        setattr(module, name, getattr(home, name))
        yield
    finally:
        setattr(home, name, original)
        setattr(module, name, original)
