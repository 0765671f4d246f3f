"""What help() shows: every parameter of an attack, and an example that can be run.

``python -m pytest --doctest-modules crlib`` runs the examples.
"""

import doctest
import importlib
import inspect

import pytest

from crlib import attacks

DEPENDS = ("crlib",)
ROOMS = ("attacks", "certify", "compress", "metrics", "theory", "train")
FUNCTIONS = [
    (room, name)
    for room in ROOMS
    for name in importlib.import_module(f"crlib.{room}").__all__
    if inspect.isfunction(getattr(importlib.import_module(f"crlib.{room}"), name))
]


@pytest.mark.parametrize(("room", "name"), FUNCTIONS)
def test_a_public_function_has_an_example_with_an_answer(room: str, name: str) -> None:
    function = getattr(importlib.import_module(f"crlib.{room}"), name)
    examples = doctest.DocTestParser().get_examples(inspect.getdoc(function) or "")
    assert any(name in example.source for example in examples)
    assert any(example.want for example in examples)
    # Whoever copies it has all that it needs.
    imports = [e.source for e in examples if e.source.startswith("from crlib import")]
    assert any(room in line for line in imports)


@pytest.mark.parametrize("name", [n for room, n in FUNCTIONS if room == "attacks"])
def test_help_on_an_attack_explains_every_parameter(name: str) -> None:
    attack = getattr(attacks, name)
    text = inspect.getdoc(attack) or ""
    for own, parameter in inspect.signature(attack).parameters.items():
        if parameter.kind is not parameter.VAR_POSITIONAL:
            stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
            assert f"    {stars}{own}: " in text, own
