"""A report as one HTML file: no script, no request, light and dark, fit to print."""

import html
from collections.abc import Iterable, Mapping

from crlib.reporting.parts import TITLES, Section, Table

__all__ = ["body", "page"]

STYLE = """
:root { color-scheme: light dark; --line: #8886; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto;
  padding: 0 1rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { text-align: start; font-weight: 600; padding: .3rem 0; }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line);
  text-align: start; vertical-align: top; }
thead th { position: sticky; top: 0; background: Canvas; }
td.long { min-width: 14rem; }
.wide { overflow: auto; max-height: 36rem; margin: 1rem 0; }
figure { margin: 1rem 0; }
figure svg { background: #fff; max-width: 100%; height: auto; border-radius: .3rem; }
.caution { border-inline-start: .25rem solid #b35900; padding: .3rem .8rem;
  background: var(--soft); }
@media (max-width: 30rem) { th, td { padding: .25rem .4rem; } }
@media print { body { max-width: none; margin: 0; } section { break-inside: avoid; }
  .wide { max-height: none; overflow: visible; } }
"""


def page(title: str, sections: Iterable[Section], left_out: Mapping[str, str]) -> str:
    """Return the whole file."""
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{STYLE}</style></head>"
        f"<body><main><h1>{html.escape(title)}</h1>{body(sections, left_out)}"
        "</main></body></html>\n"
    )


def body(sections: Iterable[Section], left_out: Mapping[str, str]) -> str:
    """Return the sections, and why others are missing."""
    parts = [_section(s) for s in sorted(sections, key=lambda s: _place(s.name))]
    if left_out:
        told = "".join(
            f"<li>{html.escape(TITLES[name])}: {html.escape(why)}</li>"
            for name, why in left_out.items()
        )
        parts.append(f"<section><h2>Left out</h2><ul>{told}</ul></section>")
    return "".join(parts)


def _place(name: str) -> int:
    return list(TITLES).index(name)


def _section(section: Section) -> str:
    caution = f'<p class="caution">{html.escape(section.caution)}</p>'
    pictures = "".join(
        f'<figure role="img" aria-label="{html.escape(p.alt)}">{p.svg}'
        f"<figcaption>{html.escape(p.caption)}</figcaption></figure>"
        for p in section.pictures
    )
    return (
        f'<section id="{section.name}"><h2>{html.escape(section.title)}</h2>'
        + "".join(f"<p>{html.escape(p)}</p>" for p in section.text.split("\n"))
        + "".join(map(_table, section.tables))
        + pictures
        + (caution if section.caution else "")
        + "</section>"
    )


def _table(table: Table) -> str:
    head = "".join(f'<th scope="col">{html.escape(c)}</th>' for c in table.columns)
    rows = "".join(
        "<tr>"
        + f'<th scope="row">{_name(row[0])}</th>'
        + "".join(map(_cell, row[1:]))
        + "</tr>"
        for row in table.rows
    )
    shown = f"<thead><tr>{head}</tr></thead>" if any(table.columns) else ""
    return (
        f'<div class="wide" tabindex="0"><table><caption>{html.escape(table.caption)}'
        f"</caption>{shown}<tbody>{rows}</tbody></table></div>"
    )


def _name(v: str) -> str:
    """A name of a layer may go on in the next line behind a dot."""
    return html.escape(v).replace(".", ".<wbr>").replace("_", "_<wbr>")


def _cell(v: str) -> str:
    # A sentence is not to be squeezed to a word a line.
    kind = ' class="long"' if len(v) > 40 else ""
    return f"<td{kind}>{html.escape(v)}</td>"
