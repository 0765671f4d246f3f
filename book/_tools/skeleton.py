"""Make the skeleton of a new unit: ``python -m book._tools.skeleton lab spiking_nets``.

It writes the manuscript, the tests of its exercises and the file of its own tests,
and enters the unit in the table of contents and on the pages that name every unit.
What is still to be written says TODO, which no check lets pass.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from book._tools.depends import ROOT
from book._tools.units import KINDS, Unit, units

MANUSCRIPT = """\
---
jupytext:
  text_representation:
    extension: .md
    format_name: myst
kernelspec:
  display_name: Python 3
  language: python
  name: python3
---
# {title}

```{{chapter-card}}
:needs: TODO what the reader must know
{goals}
```

```{{code-cell}} ipython3
:tags: [setup]
import torch

from crlib import exercises
from crlib.claims import claim, glue
from crlib.exercises import {name}
```
{sections}
"""
QUESTION = """
```{predict} TODO a question?
- TODO a wrong answer. :: Why not.
- [x] TODO the right one. :: Why.
```
"""
FAILURE = """
```{code-cell} ipython3
:tags: [failure]
claim("TODO what fails.", False)
```
"""
ASKED = """
```{{exercise-start}} TODO a title
:label: ex-{short}-{name}
:class: {kind}stars-1 minutes-10 points-2
```
TODO the task.
```{{exercise-end}}
```

```{{hint}}
:class: dropdown
TODO one hint.
```
"""
IN_WORDS = """
```{{solution-start}} ex-{short}-{kind}
:class: dropdown
```
TODO the answer.
{rubric}```{{solution-end}}
```
"""
RUBRIC = """
```{admonition} Rubric
- *Two points:* TODO what a full answer says.
- *Usual wrong turn:* TODO the mistake to expect.
```
"""
EXERCISE = """
```{{code-cell}} ipython3
:tags: [exercise, ex-{short}-{n}]
def answer_{n}(v):
    raise NotImplementedError
```

```{{code-cell}} ipython3
:tags: [public-test, ex-{short}-{n}]
exercises.check({name}.answer_{n}, answer_{n})
```

```{{code-cell}} ipython3
:tags: [hidden-test, ex-{short}-{n}, remove-cell]
exercises.check({name}.answer_{n}_hidden, answer_{n})
```

```{{solution-start}} ex-{short}-{n}
:class: dropdown
```
```{{code-cell}} ipython3
:tags: [solution, ex-{short}-{n}]
def answer_{n}(v):
    return v
exercises.check({name}.answer_{n}, answer_{n})
```
```{{solution-end}}
```
"""
TESTS = '''\
"""Tests of the exercises of {words}: each takes the learner's function."""

from collections.abc import Callable
from typing import Any
{functions}'''
FUNCTION = '''

def answer_{n}{hidden}(answer: Callable[..., Any]{seed}) -> None:
    """TODO what is tested."""
    raise AssertionError("TODO what the learner reads.")
'''
OWN = '''\
"""{Words}: mutations of its theorems, wrong answers, its code from scratch."""

from tests.units import Mutation
from tests.units.every import *

MUTATIONS: list[Mutation] = []

WRONG: dict[str, str] = {{}}
'''


def files(unit: Unit) -> dict[str, str]:
    """Return the files of a new unit by their places."""
    rules, short = unit.rules, unit.slug.replace("_", "-")
    words = f"{rules.word} {unit.number}"
    sections = ""
    for title in rules.sections:
        if title == "What could go wrong":
            sections += QUESTION * rules.questions
        sections += f"\n## {title}\n"
        if title == "What could go wrong":
            sections += FAILURE * rules.failures + "\n## Exercises\n"
            for n in range(1, rules.exercises + 1):
                sections += ASKED.format(short=short, name=n, kind="")
                sections += EXERCISE.format(short=short, n=n, name=unit.name)
            for kind in rules.asks:
                sections += ASKED.format(short=short, name=kind, kind=f"{kind} ")
                rubric = RUBRIC if kind == "judge" else ""
                sections += IN_WORDS.format(short=short, kind=kind, rubric=rubric)
    manuscript = MANUSCRIPT.format(
        title=unit.title,
        goals="\n".join(["- TODO an objective."] * rules.objectives),
        name=unit.name,
        sections=sections,
    )
    functions = "".join(
        FUNCTION.format(n=n, hidden=hidden, seed=seed)
        for n in range(1, rules.exercises + 1)
        for hidden, seed in (("", ""), ("_hidden", ", seed: int = 0"))
    )
    return {
        f"book/{unit.stem}.md": manuscript.rstrip("\n") + "\n",
        f"crlib/exercises/{unit.name}.py": TESTS.format(
            words=words, functions=functions
        ),
        f"tests/units/{unit.name}.py": OWN.format(Words=words.capitalize()),
    }


PART = "- caption: VI Neighbours\n  numbered: true\n  chapters:\n"


def enter(contents: str, unit: Unit, same: list[Unit]) -> str:
    """Return a table of contents with the unit in its place among those of its kind."""
    line = f"  - file: book/{unit.stem}\n"
    for other in reversed(same):
        there = f"  - file: book/{other.stem}\n"
        if other < unit:
            return contents.replace(there, there + line)
        if other == same[0]:
            return contents.replace(there, line + there)
    back = "- caption: Back matter\n"
    return contents.replace(back, PART + line + back)


# Pages that name every unit: what stands there of one, and what of a new one.
PLACES = (
    (
        "part*.md",
        r"\[.*\]\({stem}\.md\)\n: .*\n(?:  .*\n)*",
        "\n[{title}]({stem}.md)\n: TODO what it adds to the thread.\n",
    ),
    (
        "session_plans.md",
        r"```\{{session\}} {name}\n(?:.*\n)*?```\n",
        "\n```{{session}} {name}\n"
        "- *Vote:* TODO\n- *Board:* TODO\n- *Notebook:* TODO\n```\n",
    ),
    (
        "labs_together.md",
        r"\| \[\d+\]\({stem}\.md\) .*\n",
        "| [{number}]({stem}.md) | TODO the claim | TODO | TODO | TODO | TODO |\n",
    ),
)


def name_it(root: Path, unit: Unit, before: Unit) -> Iterator[Path]:
    """Name a unit behind another wherever that one is named; yield the files."""
    for pages, there, new in PLACES:
        pattern = there.format(stem=before.stem, name=before.name)
        for page in sorted((root / "book").glob(pages)):
            text = page.read_text(encoding="utf-8")
            if found := re.search(pattern, text):
                at = found.end()
                line = new.format(
                    stem=unit.stem, name=unit.name, number=unit.number, title=unit.title
                )
                page.write_text(text[:at] + line + text[at:], encoding="utf-8")
                yield page


def main(arguments: list[str] | None = None, root: Path = ROOT) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("kind", choices=sorted(KINDS), help="ch or lab")
    parser.add_argument("slug", help="such as spiking_nets")
    parser.add_argument("--number", type=int, help="the next one if left out")
    options = parser.parse_args(arguments)
    if not re.fullmatch(r"[a-z0-9_]+", options.slug):
        parser.error(f"the name is {options.slug!r}: write it like spiking_nets")
    same = [unit for unit in units(root) if unit.kind == options.kind]
    number = options.number or (same[-1].number if same else 0) + 1
    unit = Unit(options.kind, number, options.slug)
    if any(other.number == number for other in same):
        parser.error(f"{unit.name} exists: choose another number")
    for name, text in files(unit).items():
        (root / name).write_text(text, encoding="utf-8")
        print(name)
    contents = root / "_toc.yml"
    contents.write_text(enter(contents.read_text(), unit, same))
    for before in [other for other in same if other < unit][-1:]:
        for page in name_it(root, unit, before):
            print(f"book/{page.name}: a TODO")
    print(f"_toc.yml now names it. Next: pytest tests/units/{unit.name}.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
