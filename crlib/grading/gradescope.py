"""Grade one submission in Gradescope's container, and tell it in Gradescope's format.

    python -m crlib.grading.gradescope source/pack.json submission results/results.json

``crlib assign UNIT --gradescope`` packs ``gradescope.zip``: the pack, the wheel of
crlib and the two scripts that the container runs.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from crlib.grading import marks, walls
from crlib.grading.judge import SECONDS
from crlib.grading.marks import Record
from crlib.grading.packs import Pack, PackError, read

__all__ = ["bundle", "main", "results", "wheel"]

NOTHING = "No notebook was handed in: give a file that ends in .ipynb or .py."
IGNORED = shutil.ignore_patterns("__pycache__")
BROKEN = "The grader failed, and not you. Hand in again, or tell your teacher: {}"

# Runs once, as root, when the container is made. Ubuntu's own Python may be too old,
# and the CPU build of torch is a tenth of the size of the default one.
SETUP = """#!/usr/bin/env bash
set -e
apt-get install -y software-properties-common
add-apt-repository -y ppa:deadsnakes/ppa
apt-get install -y python3.12 python3.12-venv
python3.12 -m venv /opt/crlib
/opt/crlib/bin/pip install torch \\
  --index-url https://download.pytorch.org/whl/cpu
/opt/crlib/bin/pip install /autograder/source/*.whl
"""
# Runs for each submission. The first lines stand if nothing later is written.
RUN = """#!/usr/bin/env bash
cd "${{AUTOGRADER:-/autograder}}"
cat > results/results.json <<'END'
{early}
END
"${{PYTHON:-/opt/crlib/bin/python}}" -m crlib.grading.gradescope \\
  source/pack.json submission results/results.json
"""


def results(pack: Pack, record: Record) -> dict[str, Any]:
    """Return what Gradescope shows: a test for each of the two of an exercise.

    The further test is seen once grades are published. What a hand grades has no test;
    make a question of the same title for it.
    """
    told, by_hand = [], []
    for task, row in zip(pack.tasks, record.rows, strict=True):
        if row.score is None:
            by_hand.append(f"{row.title} ({row.points} points)")
            continue
        parts = (
            ("open test", task.public_points, row.open, row.public, "visible"),
            ("further test", task.hidden_points, row.score - row.open, row.hidden,
             "after_published"),
        )  # fmt: skip
        told += [
            {
                "name": f"{row.title}, {name}",
                "score": score,
                "max_score": most,
                "output": message,
                "visibility": when,
            }
            for name, most, score, message, when in parts
        ]
    notes = [record.note] if record.note else []
    if by_hand:
        notes.append(f"Graded by hand: {', '.join(by_hand)}.")
    if record.missing:
        notes.append(f"Walls that could not be built: {', '.join(record.missing)}.")
    return {"output": "\n".join(notes), "tests": told, "stdout_visibility": "hidden"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Grade what lies in a folder; write results whatever happens.

    Args:
        arguments: the pack, the folder of the submission, and the file of results.
    """
    place, folder, file = map(Path, sys.argv[1:] if arguments is None else arguments)
    try:
        found = _graded(read(place), folder)
    except Exception as error:  # a student must hear something, whatever it was
        found = _failed(f"{type(error).__name__}: {error}")
    file.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


def _failed(why: str) -> dict[str, Any]:
    return {"score": 0, "output": BROKEN.format(why), "stdout_visibility": "hidden"}


def _graded(pack: Pack, folder: Path) -> dict[str, Any]:
    # The folder is one student: its neighbours are the pack and the results.
    near = marks.submissions(folder.resolve().parent, pack.notebook)
    own = [s for s in near if folder.resolve() in s.files[0].parents]
    if not own:
        return {"score": 0, "output": NOTHING}
    with tempfile.TemporaryDirectory(prefix="crlib-") as out:
        (Path(out) / "verdicts").mkdir()
        record = marks.graded(pack, own[0], Path(out), SECONDS, walls.WALLS)
    return results(pack, record)


def wheel(root: Path, folder: Path) -> Path:
    """Build the wheel of crlib from the repository.

    Raises:
        PackError: it cannot be built; the message is pip's.
    """
    # Of a copy: the tools of Python leave folders where they build.
    copy = folder / "source"
    shutil.copytree(root / "crlib", copy / "crlib", ignore=IGNORED)
    for file in (
        *root.glob("LICENSE*"),
        *root.glob("README.md"),
        *root.glob("pyproject*"),
    ):
        shutil.copy(file, copy)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps"]
    command += ["--wheel-dir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise PackError(f"The wheel of crlib cannot be built: {done.stderr.strip()}")
    (made,) = folder.glob("crlib-*.whl")
    return made


def bundle(pack: Path, wheel: Path, file: Path) -> Path:
    """Write the zip that is uploaded as an autograder; return its path.

    Its pack has no rubrics: these are solutions, and the judge has no use for them.
    """
    told = read(pack)
    tasks = tuple(replace(task, rubric=()) for task in told.tasks)
    bare = json.dumps(asdict(replace(told, tasks=tasks)))
    early = json.dumps(_failed("it was stopped"))
    scripts = {"setup.sh": SETUP, "run_autograder": RUN.format(early=early)}
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, text in scripts.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o755 << 16  # to be run
            packed.writestr(info, text)
        packed.writestr("pack.json", bare)
        packed.write(wheel, wheel.name)
    return file


if __name__ == "__main__":
    sys.exit(main())
