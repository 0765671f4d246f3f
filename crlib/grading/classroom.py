"""A template repository for GitHub Classroom: each push shows a student the points.

The pack lies in the student's own repository, where it can be read and changed. So what
the workflow prints tells the student; what counts is graded by the teacher, from the
repositories that Classroom downloads.
"""

import shutil
from dataclasses import replace
from pathlib import Path

from crlib.grading.packs import Pack, Task

__all__ = ["known", "template"]

# The folder of a student, in the folder of a class of one.
WORKFLOW = """\
name: Points
on: [push]
permissions:
  contents: read
jobs:
  grade:
    runs-on: ubuntu-latest
    timeout-minutes: 30
    steps:
      - uses: actions/checkout@v4
        with:
          path: class/student
      - uses: actions/setup-python@v5
        with:
          python-version: "3.12"
      - name: Install
        run: |
          pip install torch --index-url https://download.pytorch.org/whl/cpu
          pip install "crlib @ git+{address}@{ref}"
      - name: Grade
        run: >-
          python -m crlib grade class/student/.github/pack.json class --out graded
          | tee -a "$GITHUB_STEP_SUMMARY"
"""


def template(
    pack: Pack, notebook: Path, folder: Path, *, address: str, ref: str
) -> list[Path]:
    """Write a repository to be given out; return its files.

    Args:
        pack: of the unit.
        notebook: what students get.
        folder: the repository, made if need be.
        address: of the repository of crlib.
        ref: its tag or branch.
    """
    hidden = folder / ".github"
    (hidden / "workflows").mkdir(parents=True, exist_ok=True)
    workflow, rules = hidden / "workflows" / "points.yml", hidden / "pack.json"
    workflow.write_text(WORKFLOW.format(address=address, ref=ref), encoding="utf-8")
    known(pack).write(rules)
    return [Path(shutil.copy(notebook, folder / pack.notebook)), workflow, rules]


def known(pack: Pack) -> Pack:
    """Return what of a pack the public book has: nothing that only a course knows."""
    names = "label title kind points function public hidden".split()
    names += "public_points hidden_points uses".split()
    public = [t for t in pack.tasks if not t.public or t.public.startswith("crlib.")]
    tasks = [Task(**{name: getattr(t, name) for name in names}) for t in public]
    return replace(pack, tasks=tuple(tasks))
