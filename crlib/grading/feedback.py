"""A page of feedback for a student: points and sentences, no code and no scripts."""

from html import escape
from typing import TYPE_CHECKING

from crlib.grading.packs import Pack

if TYPE_CHECKING:
    from crlib.grading.marks import Record, Row

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}: {student}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 sans-serif; max-width: 42rem; margin: 2rem auto; }}
body {{ padding: 0 1rem; }}
td, th {{ text-align: left; vertical-align: top; padding: 0.3rem 1rem 0.3rem 0; }}
td {{ overflow-wrap: anywhere; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{student}, {file}: <strong>{score} of {points} points</strong>{byhand}.</p>
{note}
{rows}
</body>
</html>
"""
_ROW = """<h2>{title}: {score}</h2>
<table>
<tr><th scope="row">Open test</th><td>{public}</td></tr>
<tr><th scope="row">Further test</th><td>{hidden}</td></tr>
</table>"""


def page(pack: Pack, record: "Record") -> str:
    """Return the page of one student."""
    byhand = any(row.score is None for row in record.rows)
    return _PAGE.format(
        title=escape(pack.title),
        student=escape(record.student),
        file=escape(record.file),
        score=record.score,
        points=record.points,
        byhand=", before what is graded by hand" if byhand else "",
        note=f"<p>{escape(record.note)}</p>" if record.note else "",
        rows="\n".join(map(_row, record.rows)),
    )


def _row(row: "Row") -> str:
    title = escape(row.title)
    if row.score is None:
        return f"<h2>{title}: {row.points} points, graded by hand</h2>"
    score = f"{row.score} of {row.points}"
    told = {"public": escape(row.public), "hidden": escape(row.hidden)}
    return _ROW.format(title=title, score=score, **told)
