"""Print the lowest versions that pyproject.toml admits, as constraints for pip.

    python -m book._tools.lowest > lowest.txt
    pip install -c lowest.txt -e .

A lower bound that nobody has run with is a guess; the nightly tests run with these.
"""

import re
import sys
import tomllib
from pathlib import Path

BOUND = re.compile(r"(?P<name>[\w.-]+)>=(?P<lowest>[\w.]+)(,.*)?")


def constraints(root: Path) -> list[str]:
    """Return a line such as ``numpy==1.26`` for each package that crlib needs.

    Raises:
        ValueError: a requirement without a lower bound.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text("utf-8"))["project"]
    lines = []
    for requirement in project["dependencies"]:
        bound = BOUND.fullmatch(requirement)
        if bound is None:
            raise ValueError(f"{requirement!r} in pyproject.toml has no lower bound.")
        lines.append(f"{bound['name']}=={bound['lowest']}")
    return lines


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in constraints(Path(".")))
