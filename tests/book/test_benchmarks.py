"""The comparison of attacks: the committed table is whole, current and rightly judged.

The libraries themselves are not needed here.
"""

import re
import sys
from collections.abc import Callable
from copy import deepcopy
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

DEPENDS = ("benchmarks", "requirements.lock")
ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks" / "attacks"))

import results  # noqa: E402
from judge import judge  # noqa: E402
from masked import paired  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results"
FACTS, ROWS = results.read(RESULTS / "attacks.csv")
_, LIMITS = results.read(RESULTS / "attacks-limits.csv")
GROUPS = dict.fromkeys(
    ("undefended", "defended"), ("bare", "pgd", "apgd", "ensemble", "minimal")
) | {"larger": ("bare", "pgd", "firm")}
LIBRARIES = ("pyautoattack", "foolbox", "torchattacks", "adv-lib")
Table = tuple[dict[str, str], list[dict[str, Any]], list[dict[str, Any]]]


def pins(path: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", path.read_text(), re.MULTILINE))


def problems(facts: dict[str, str], rows: list[Any], limits: list[Any]) -> list[str]:
    """Return what is wrong with a table of measurements."""
    found = []
    pinned = pins(ROOT / "benchmarks" / "requirements.txt")
    pinned = {name: pinned[name] for name in LIBRARIES}
    pinned["torch"] = pins(ROOT / "requirements.lock")["torch"]
    for name, version in pinned.items():
        if facts.get(name, "").split("+")[0] != version:
            found.append(f"{name} is pinned to {version}: measure again")
    for name in ("date", "device", "threads", "crlib", "data", "cpu seconds"):
        if not facts.get(name):
            found.append(f"nothing says the {name}")
    places = {(r["network"], r["norm"], r["group"], r["library"]) for r in rows}
    for network, groups in GROUPS.items():
        for norm in ("linf", "l2", "l1"):
            for group in groups:
                whose = {p[3] for p in places if p[:3] == (network, norm, group)}
                if len(whose) < (1 if group in ("bare", "firm") else 2):
                    found.append(f"{network}, {norm}: {group} is incomplete")
    for row in rows:
        wanted = ["ratio", "seconds", "forward", "backward", "megabytes", "outside"]
        if row["group"] == "minimal":
            wanted += ["found", "median", "best_median", "best_p90", "fab_median"]
        else:
            wanted += ["robust", "images"]
        try:
            value = {name: float(row[name]) for name in wanted}
        except ValueError:
            found.append(f"a number is missing: {row}")
            continue
        if min(value.values()) < 0 or value["ratio"] == 0 or value["forward"] == 0:
            found.append(f"a number that cannot be: {row}")
        if not 0 <= value.get("robust", 0) <= 1 or value.get("best_median", 1) < 1:
            found.append(f"a share that cannot be: {row}")
        if row["library"] == "crlib" and value["outside"]:
            found.append(f"crlib left box or ball: {row}")
    again = [
        {name: results.text(v) for name, v in row.items()}
        for row in results.verdicts(rows)
    ]
    if again != limits:
        found.append("the verdicts do not follow from the table")
    return found


def test_the_committed_table_is_whole_and_current() -> None:
    found = problems(FACTS, ROWS, LIMITS)
    assert not found, "\n".join(found)


def of(rows: list[Any], library: str, group: str) -> dict[str, Any]:
    return next(r for r in rows if (r["library"], r["group"]) == (library, group))


FAULTS: dict[str, Callable[[Any, Any, Any], object]] = {
    "another version": lambda facts, rows, limits: facts.update(foolbox="3.3.3"),
    "another torch": lambda facts, rows, limits: facts.update(torch="2.12.0"),
    "no date": lambda facts, rows, limits: facts.pop("date"),
    "no AutoAttack": lambda facts, rows, limits: rows.remove(
        of(rows, "AutoAttack", "ensemble")
    ),
    "an attack that failed": lambda facts, rows, limits: rows[3].update(ratio=""),
    "a negative time": lambda facts, rows, limits: rows[3].update(ratio="-1"),
    "a share above one": lambda facts, rows, limits: of(rows, "crlib", "pgd").update(
        robust="1.2"
    ),
    "better than the best": lambda facts, rows, limits: of(
        rows, "crlib", "minimal"
    ).update(best_median="0.9"),
    "points outside": lambda facts, rows, limits: of(rows, "crlib", "pgd").update(
        outside="1"
    ),
    "a kinder verdict": lambda facts, rows, limits: limits[0].update(worst="-9"),
    "a stronger attack": lambda facts, rows, limits: [
        r.update(robust="0") for r in rows if r["attack"] == "standard"
    ],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_noticed(fault: str) -> None:
    facts, rows, limits = deepcopy(FACTS), deepcopy(ROWS), deepcopy(LIMITS)
    FAULTS[fault](facts, rows, limits)
    assert problems(facts, rows, limits)


def test_a_part_measured_anew_takes_the_place_of_the_old_one() -> None:
    old = [r for r in ROWS if r["norm"] != "l1"]
    new = [{**r, "ratio": "7"} for r in ROWS if results.place(r)[1:] == ("l2", "pgd")]
    found = results.merged(old, new)
    assert len(found) == len(old)
    assert [results.place(r) for r in found] == [results.place(r) for r in old]
    changed = [r for r in found if r["ratio"] == "7"]
    assert changed == new and new
    assert results.merged([], ROWS) == ROWS
    assert [r for r in results.merged(old, ROWS) if r["norm"] == "l1"] == [
        r for r in ROWS if r["norm"] == "l1"
    ]


def test_the_judge_believes_only_the_points() -> None:
    """The class is the sign of the first input: above one half is label 1."""
    model = torch.nn.Linear(2, 2)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-1.0, 0.0], [1.0, 0.0]]))
        model.bias.copy_(torch.tensor([0.5, -0.5]))
    x = torch.tensor([[0.4, 0.5]]).repeat(6, 1)
    y = torch.tensor([0, 0, 0, 0, 1, 0])
    x_adv = torch.tensor(
        [
            [0.55, 0.5],  # fooled, in the ball
            [0.45, 0.5],  # not fooled
            [0.75, 0.5],  # fooled, outside the ball
            [0.55, -0.1],  # fooled, outside the box
            [0.40, 0.5],  # labelled wrongly from the start
            [float("nan"), 0.5],
        ]
    )
    verdict = judge(model, x, y, x_adv, "linf", 0.2)
    assert verdict["fooled"] == [True, False, False, False, True, False]
    assert verdict["outside"] == 3
    assert verdict["distance"][0] == pytest.approx(0.15)
    assert verdict["distance"][4] == 0
    assert verdict["distance"][1:4] == [float("inf")] * 3
    without = judge(model, x, y, x_adv, "linf", None)
    assert without["fooled"][2] and without["outside"] == 2


# The parts with a table of their own, and the packages whose versions each must hold.
PARTS = {
    "optimality": (*LIBRARIES, "attackbenchlib"),
    "bounds": ("auto_LiRPA",),
    "counting": ("robustbench", "pyautoattack"),
    "masked": ("pyautoattack",),
}
MASKED = (
    "jpeg winners ripple decoy hinge thermometer certain blind label steps loud reverse"
).split() + ["coarse inside"]


def numbers(row: dict[str, str], *columns: str) -> list[float]:
    return [float(row[column]) for column in columns]


def of_optimality(rows: list[Any]) -> list[str]:
    found = []
    norms = ("linf", "l2", "l1", "l0")
    for place in product(("undefended", "defended"), norms):
        part = [r for r in rows if (r["network"], r["norm"]) == place]
        if not {"crlib", "adv-lib", "foolbox"} <= {r["library"] for r in part}:
            found.append(f"{place}: incomplete")
    for row in rows:
        score, low, high, share = numbers(row, "score", "low", "high", "found")
        if not 0 <= low <= high <= 1 or not 0 <= score <= 1 or not 0 <= share <= 1:
            found.append(f"a share that cannot be: {row}")
        if row["library"] == "crlib" and (row["outside"] != "0" or share < 1):
            found.append(f"crlib left the box or found nothing: {row}")
    return found


# Where two sound relaxations differ, by how much theirs may be ahead of ours.
AHEAD = {"MaxPool": 0.01, "ResNet": 0.01, "tanh": 0.01, "LeakyReLU": 0.05}


def of_bounds(rows: list[Any]) -> list[str]:
    found = []
    places = {(r["network"], r["method"]) for r in rows}
    networks = ("MLP", "ConvNet", "AvgPool", *AHEAD)
    if places != set(product(networks, ("intervals", "relaxation"))):
        found.append("the bounds are incomplete")
    for row in rows:
        above, mean = numbers(row, "theirs_above", "mean")
        # What rounding in float32 can do, on either side.
        reach = 1e-4 * max(1, abs(mean))
        if row["method"] == "relaxation":
            reach = AHEAD.get(row["network"], reach)
        if above > reach:
            found.append(f"auto_LiRPA proves more: {row}")
        ours, others = numbers(row, "certified", "their_certified")
        if not others <= ours <= float(row["images"]):
            found.append(f"a number that cannot be: {row}")
    return found


def of_counting(rows: list[Any]) -> list[str]:
    found = []
    if {r["attack"] for r in rows} != {"AutoAttack", "crlib"}:
        found.append("the count is incomplete")
    for row in rows:
        if not row["said"] == row["counted"] == row["in_one_batch"]:
            found.append(f"counted otherwise: {row}")
        clean, n = numbers(row, "clean", "images")
        wrong = str(round((1 - clean) * n))
        if not wrong == row["wrong_counted"] == row["unmoved"]:
            found.append(f"a wrong image counts as robust, or was moved: {row}")
    return found


def of_masked(rows: list[Any]) -> list[str]:
    found = []
    if sorted(r["network"] for r in rows) != sorted(MASKED):
        found.append("a network is missing, unknown, or there twice")
    for row in rows:
        clean, ours, n = numbers(row, "clean", "thorough", "images")
        if not 0 <= ours <= clean <= 1:
            found.append(f"a share that cannot be: {row}")
            continue
        if not row["autoattack"]:
            if "AutoAttack ends" not in row["note"]:
                found.append(f"no word about AutoAttack: {row}")
            continue
        both = round(n * ours) - int(row["theirs"])
        rest = n - both - int(row["ours"]) - int(row["theirs"])
        gap = paired(both, int(row["theirs"]), int(row["ours"]), int(rest))
        again = [results.text(v) for v in (gap.mean, gap.low, gap.high)]
        if [row["difference"], row["low"], row["high"]] != again:
            found.append(f"the interval does not follow from the counts: {row}")
        if int(row["ours"]) < int(row["theirs"]):
            found.append(f"AutoAttack breaks more: {row}")
    return found


JUDGES = {
    "optimality": of_optimality,
    "bounds": of_bounds,
    "counting": of_counting,
    "masked": of_masked,
}


def faults(part: str, facts: dict[str, str], rows: list[Any]) -> list[str]:
    pinned = pins(ROOT / "benchmarks" / "requirements.txt")
    pinned |= {"torch": pins(ROOT / "requirements.lock")["torch"]}
    found = [
        f"{name} is pinned to {pinned[name]}: measure again"
        for name in (*PARTS[part], "torch")
        if facts.get(name, "").split("+")[0] != pinned[name]
    ]
    for name in ("date", "device", "threads", "crlib", "cpu seconds"):
        if not facts.get(name):
            found.append(f"nothing says the {name}")
    return found + JUDGES[part](rows)


@pytest.mark.parametrize("part", PARTS)
def test_a_table_of_the_peers_is_whole_and_current(part: str) -> None:
    found = faults(part, *results.read(RESULTS / f"{part}.csv"))
    assert not found, "\n".join(found)


BROKEN: dict[str, tuple[str, dict[str, str]]] = {
    "a score above one": ("optimality", {"score": "1.1"}),
    "a point outside the box": ("optimality", {"outside": "1"}),
    "a tighter bound of theirs": ("bounds", {"theirs_above": "0.5"}),
    "more certified than there are": ("bounds", {"certified": "1000"}),
    "counted otherwise": ("counting", {"counted": "0.99"}),
    "a wrong image that counts": ("counting", {"wrong_counted": "0"}),
    "more robust than right": ("masked", {"thorough": "0.99"}),
    "a kinder interval": ("masked", {"low": "-0.5"}),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_fault_planted_among_the_peers_is_noticed(fault: str) -> None:
    part, change = BROKEN[fault]
    facts, rows = results.read(RESULTS / f"{part}.csv")
    next(r for r in rows if r.get("library", "crlib") == "crlib").update(change)
    assert faults(part, facts, rows)


def test_a_masked_network_that_is_missing_or_lost_is_noticed() -> None:
    facts, rows = results.read(RESULTS / "masked.csv")
    assert faults("masked", facts, rows[1:])
    row = next(r for r in rows if r["autoattack"])
    n = int(row["images"])
    standing = round(n * float(row["autoattack"]))
    gap = paired(standing, 2, 0, n - standing - 2)
    behind = {"ours": "0", "theirs": "2", "thorough": results.text((standing + 2) / n)}
    ends = {"difference": gap.mean, "low": gap.low, "high": gap.high}
    row.update(behind | {name: results.text(v) for name, v in ends.items()})
    assert [f.split(":")[0] for f in of_masked(rows)] == ["AutoAttack breaks more"]


def test_a_part_measured_anew_leaves_the_rest(tmp_path: Path) -> None:
    path, facts = tmp_path / "part.csv", {"torch": "2", "cpu seconds": "7"}
    rows = [{"norm": "l0"}, {"norm": "l1"}]
    results.write(path, ["norm"], rows, facts)
    again = {"torch": "2", "date": "today"}
    found = results.left(path, again, lambda row: row["norm"] == "l0")
    assert found == ([{"norm": "l1"}], 7.0)
    assert results.left(tmp_path / "none.csv", again, bool) == ([], 0.0)
    with pytest.raises(SystemExit, match="measure all of it"):
        results.left(path, {"torch": "3"}, bool)


@pytest.mark.parametrize("part", PARTS)
def test_another_version_of_a_peer_is_noticed(part: str) -> None:
    facts, rows = results.read(RESULTS / f"{part}.csv")
    for name in PARTS[part]:
        assert faults(part, {**facts, name: "0.0"}, rows)


def test_the_interval_of_a_paired_difference_covers_it() -> None:
    g = torch.Generator().manual_seed(0)
    shares = torch.tensor([0.5, 0.06, 0.02, 0.42], dtype=torch.float64)
    draws = torch.multinomial(shares, 64 * 1000, replacement=True, generator=g)
    inside = []
    for sample in draws.view(1000, 64):
        counts = sample.bincount(minlength=4).tolist()
        gap, back = paired(*counts), paired(counts[0], counts[2], counts[1], counts[3])
        assert (back.low, back.high) == pytest.approx((-gap.high, -gap.low))
        inside.append(gap.low <= 0.04 <= gap.high)
    assert 0.93 <= sum(inside) / 1000 <= 0.99
    # No pair apart is no proof that there is none.
    same = paired(30, 0, 0, 34)
    assert same.low < -0.01 and same.high > 0.01
