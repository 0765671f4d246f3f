"""Grade notebooks that students hand in: pack, extract, judge, verdict.

A *pack* (``packs``) says what a unit of the book asks for. From each notebook the
wanted functions are taken by name, and no cell runs (``extract``). Each function is
judged in processes of its own (``judge``): the student's code in one (``worker``),
behind walls (``walls``), the tests in another (``tester``), and what passes between
them is plain values (``wire``). The marks of a class go into a table (``marks``) and a
page for each student (``feedback``). The same verdicts go to Gradescope
(``gradescope``), to nbgrader (``nbgrader``) and to GitHub Classroom (``classroom``).

``crlib grade PACK SUBMITTED`` does all this.
"""

from crlib.grading.judge import Verdict, judge
from crlib.grading.marks import grade
from crlib.grading.packs import Pack, PackError, Task, read
from crlib.grading.walls import WALLS

__all__ = [
    "WALLS",
    "Pack",
    "PackError",
    "Task",
    "Verdict",
    "grade",
    "judge",
    "read",
]
