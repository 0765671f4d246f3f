"""The table of measurements, and what crlib demands of itself in it."""

import csv
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

COLUMNS = (
    "network norm eps group library attack images ratio seconds forward backward"
    " megabytes robust found median best_median best_p90 fab_median fab_p90 outside"
    " note"
).split()
Row = dict[str, Any]
Part = list[Row]
SLACK = 1e-9


def text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def write(
    path: Path, columns: list[str], rows: list[Row], facts: dict[str, str] | None = None
) -> None:
    """Write rows as CSV below lines that say how they came about."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        for name, value in (facts or {}).items():
            file.write(f"# {name}: {value}\n")
        lines = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        lines.writeheader()
        for row in rows:
            lines.writerow({name: text(value) for name, value in row.items()})


def read(path: Path) -> tuple[dict[str, str], list[Row]]:
    """Return the facts and the rows that :func:`write` wrote."""
    lines = path.read_text(encoding="utf-8").splitlines()
    facts = [line[2:].split(": ", 1) for line in lines if line.startswith("# ")]
    rows = csv.DictReader(line for line in lines if not line.startswith("# "))
    return {name: value for name, value in facts}, list(rows)


def left(
    path: Path | None, facts: dict[str, str], anew: Callable[[Row], bool]
) -> tuple[list[Row], float]:
    """Return the rows that a part measured anew leaves, and the CPU seconds of all.

    Raises:
        SystemExit: the table was measured otherwise, so that a part would not fit.
    """
    if path is None or not path.exists():
        return [], 0.0
    known, old = read(path)
    seconds = known.pop("cpu seconds")
    if known.items() - facts.items():
        raise SystemExit(f"{path} was measured otherwise: measure all of it.")
    return [row for row in old if not anew(row)], float(seconds)


def place(row: Row) -> tuple[str, str, str]:
    """Return what is measured in one go."""
    return row["network"], row["norm"], row["group"]


def merged(old: list[Row], new: list[Row]) -> list[Row]:
    """Put what was measured anew in the place of what was there."""
    fresh = {place(row) for row in new}
    order = list(dict.fromkeys(place(row) for row in (*old, *new)))
    found = [row for row in old if place(row) not in fresh] + new
    return sorted(found, key=lambda row: order.index(place(row)))


def number(row: Row, column: str) -> float:
    """Return an entry; what could not be measured counts as infinitely bad."""
    value = row.get(column, "")
    return float(value) if value != "" else float("inf")


def one(part: Part, library: str, attack: str) -> Row:
    """Return the row of an attack, or an empty one if it was not measured."""
    found = [r for r in part if (r["library"], r["attack"]) == (library, attack)]
    return found[0] if found else {}


def above(attack: str) -> Callable[[Part], float]:
    """Robust accuracy beyond AutoAttack's, in points."""

    def measure(part: Part) -> float:
        ours, theirs = one(part, "crlib", attack), one(part, "AutoAttack", "standard")
        return 100 * (number(ours, "robust") - number(theirs, "robust"))

    return measure


def share_of_time(attack: str, library: str, other: str) -> Callable[[Part], float]:
    def measure(part: Part) -> float:
        ours, theirs = one(part, "crlib", attack), one(part, library, other)
        return number(ours, "ratio") / number(theirs, "ratio")

    return measure


def disagreement(part: Part) -> float:
    """Samples by which PGD and foolbox's differ, projected alike, at any step."""
    ours = one(part, "crlib", "PGD, clipped") or one(part, "crlib", "PGD")
    theirs = one(part, "foolbox", "PGD, every step counts")
    gap = abs(number(ours, "robust") - number(theirs, "robust"))
    # The table holds four digits.
    return round(gap * number(ours, "images"), 1)


def share_of_least(column: str) -> Callable[[Part], float]:
    """PGD's entry as a share of the least of the other libraries' PGD."""

    def measure(part: Part) -> float:
        others = [number(r, column) for r in part if r["library"] != "crlib"]
        return number(one(part, "crlib", "PGD"), column) / min(others)

    return measure


def entry(attack: str, column: str) -> Callable[[Part], float]:
    return lambda part: number(one(part, "crlib", attack), column)


# What is demanded, of which group, network ("" is every) and norms, and the limit.
ALL = ("linf", "l2", "l1")
LED = "FMN, led by DeepFool"
Demand = tuple[str, str, str, tuple[str, ...], float, Callable[[Part], float]]
DEMANDS: tuple[Demand, ...] = (
    (
        "worst case, full: points above AutoAttack",
        "ensemble",
        "",
        ALL,
        0.5,
        above("worst case, full"),
    ),
    (
        "worst case, full: share of AutoAttack's time",
        "ensemble",
        "",
        ALL,
        1 / 5,
        share_of_time("worst case, full", "AutoAttack", "standard"),
    ),
    (
        "worst case, quick: points above AutoAttack",
        "ensemble",
        "",
        ALL,
        1.5,
        above("worst case, quick"),
    ),
    (
        "worst case, quick: share of AutoAttack's time",
        "ensemble",
        "",
        ALL,
        1 / 30,
        share_of_time("worst case, quick", "AutoAttack", "standard"),
    ),
    (
        "PGD, equal settings: samples apart from foolbox",
        "pgd",
        "",
        ("linf", "l2"),
        1,
        disagreement,
    ),
    (
        "PGD as it comes, undefended: share of the bare loop's time",
        "pgd",
        "undefended",
        ("linf", "l2"),
        0.25,
        entry("PGD, defaults", "ratio"),
    ),
    (
        "PGD as it comes, larger network: share of the bare loop's time",
        "pgd",
        "larger",
        ("linf", "l2"),
        0.25,
        entry("PGD, defaults", "ratio"),
    ),
    (
        "PGD, nothing dropped: share of the bare loop's time",
        "firm",
        "larger",
        ALL,
        1.1,
        entry("PGD, defaults", "ratio"),
    ),
    (
        "PGD, undefended: share of the fastest library's time",
        "pgd",
        "undefended",
        ("linf", "l2"),
        1 / 3,
        share_of_least("ratio"),
    ),
    (
        "PGD, defended: share of the fastest library's time",
        "pgd",
        "defended",
        ("linf", "l2"),
        1,
        share_of_least("ratio"),
    ),
    (
        "PGD: share of the thriftiest library's memory",
        "pgd",
        "",
        ("linf", "l2"),
        1,
        share_of_least("megabytes"),
    ),
    *(
        (f"{LED}: {what}", "minimal", "", ALL, limit, measure)
        for what, limit, measure in (
            ("median ratio to FAB", 1.0, entry(LED, "fab_median")),
            ("ninth decile of the ratio to FAB", 1.03, entry(LED, "fab_p90")),
            ("share of FAB's time", 1 / 10, share_of_time(LED, "AutoAttack", "FAB")),
        )
    ),
)


def verdicts(rows: Iterable[Row]) -> list[Row]:
    """Return each demand with its limit, the worst measurement and where it was."""
    parts: dict[tuple[str, str, str], Part] = {}
    for row in rows:
        parts.setdefault(place(row), []).append(row)
    found = []
    for demand, group, network, norms, limit, measure in DEMANDS:
        cases = [
            (measure(part), f"{kind}, {norm}")
            for (kind, norm, what), part in parts.items()
            if what == group and network in ("", kind) and norm in norms
        ]
        if cases:
            worst, where = max(cases)
            holds = "yes" if worst <= limit + SLACK else "no"
            found.append(
                {
                    "demand": demand,
                    "limit": limit,
                    "worst": worst,
                    "where": where,
                    "met": f"{sum(v <= limit + SLACK for v, _ in cases)}/{len(cases)}",
                    "holds": holds,
                }
            )
    return found
