"""The command ``crlib``: studies, a report on a network, assignments of the book."""

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from crlib.version import __version__

OUT = Path("results")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="crlib", description=__doc__)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="name the studies")
    run = commands.add_parser("run", help="run a study, or what is missing of it")
    show = commands.add_parser("results", help="print the finished runs as a table")
    for command in (run, show):
        command.add_argument("name", help="of the study")
        command.add_argument("--out", type=Path, default=OUT, help="folder of results")
        command.add_argument("--csv", type=Path, help="also write the table to a file")
    run.add_argument("--profile", default="quick", help="quick, full, or a grid's name")
    run.add_argument(
        "--from",
        dest="known",
        type=Path,
        help="a table (CSV) of finished runs, which are not run again",
    )
    run.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    run.add_argument("--jobs", type=int, default=1, help="runs at once, -1 for all")
    run.add_argument("--backend", default="loky", help="of joblib: loky, threading")
    run.add_argument(
        "--cluster", help="of dask: tcp://host:port, or slurm:file.yaml (pbs, sge, lsf)"
    )
    judge = commands.add_parser(
        "report",
        help="judge a network of your own",
        description="Judge a network of your own: crlib report mine.py:net --weights"
        " weights.pt --data photographs",
    )
    judge.add_argument(
        "network", help="module:function or file.py:function; it returns the network"
    )
    judge.add_argument(
        "--weights",
        help="a state dictionary, .pt or .safetensors (pip install safetensors)",
    )
    judge.add_argument(
        "--data",
        required=True,
        help="a folder <class>/*.png or .jpg, or an .npz or .pt file with x and y",
    )
    judge.add_argument(
        "--grey", action="store_true", help="read a folder's images in grey"
    )
    judge.add_argument("--baseline", help="another network, as the first")
    judge.add_argument("--baseline-weights", help="its weights")
    judge.add_argument("--eps", nargs="+", metavar="NORM=EPS", help="linf=8/255 l2=0.5")
    judge.add_argument(
        "--attacked", type=int, default=200, help="how many are attacked, else 200"
    )
    judge.add_argument("--device", default="cpu", help="cpu, cuda, cuda:1, ...")
    judge.add_argument(
        "--limit", type=float, metavar="GB", help="memory of a pass, else 1, on a GPU 8"
    )
    judge.add_argument(
        "--bf16", action="store_true", help="attack in bfloat16, confirm in full"
    )
    judge.add_argument(
        "--out", type=Path, default=Path("report.html"), help="else report.html"
    )
    judge.add_argument("--json", type=Path, help="also write the numbers to a file")
    judge.add_argument("--resume", type=Path, help="file that keeps finished sections")
    assign = commands.add_parser(
        "assign", help="make an assignment of a chapter or lab"
    )
    assign.add_argument("unit", nargs="?", help="such as ch05 or lab03")
    assign.add_argument("--all", action="store_true", help="every chapter and lab")
    assign.add_argument("--out", type=Path, help="a folder, else assignments/UNIT")
    assign.add_argument("--gradescope", action="store_true", help="its zip, too")
    assign.add_argument("--nbgrader", metavar="COURSE", help="enter it in a course")
    assign.add_argument("--classroom", action="store_true", help="a template, too")
    assign.add_argument("--seed", help="a number of your own for the hidden tests")
    assign.add_argument("--extra", help="a folder of exercises of your own")
    student = commands.add_parser("student", help="the book without its solutions")
    student.add_argument("--out", type=Path, help="a folder, else assignments/student")
    student.add_argument("--pages", action="store_true", help="its pages, too")
    grade = commands.add_parser("grade", help="grade the notebooks of a class")
    grade.add_argument("pack", type=Path, help="pack.json of the assignment")
    grade.add_argument("submitted", type=Path, help="a folder, or a zip of one")
    grade.add_argument("--out", type=Path, default=Path("graded"), help="a folder")
    grade.add_argument("--nbgrader", type=Path, metavar="COURSE", help="tell it, too")
    grade.add_argument("--jobs", type=int, default=2, help="students at once")
    grade.add_argument("--seconds", type=int, default=10, help="for each answer")
    return parser


def _report(chosen: argparse.Namespace) -> int:
    """Judge a network: the command ``crlib report``."""
    import torch

    from crlib import data, reporting
    from crlib.reporting import loading

    try:
        for file in (chosen.out, chosen.json):
            # Said now, and not after minutes of work.
            if file is not None and not file.parent.is_dir():
                raise ValueError(f"{file.parent} is no folder: make it, for {file}.")
        _usable(chosen.device)
        model = loading.network(chosen.network, chosen.weights).to(chosen.device)
        baseline = None
        if chosen.baseline is not None:
            other = loading.network(chosen.baseline, chosen.baseline_weights)
            baseline = other.to(chosen.device)
        x, y = (
            v.to(chosen.device) for v in loading.inputs(chosen.data, grey=chosen.grey)
        )
        found = reporting.report(
            model,
            x,
            y,
            eps=None if chosen.eps is None else dict(map(_budget, chosen.eps)),
            attacked=chosen.attacked,
            baseline=baseline,
            limit=chosen.limit,
            autocast=torch.bfloat16 if chosen.bf16 else None,
            resume=chosen.resume,
        )
    except (ValueError, data.DataError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped before the first section.", file=sys.stderr)
        return 130
    print(f"{found.html(chosen.out)}\n\n{found.sections['words'].text}")
    if chosen.json is not None:
        found.json(chosen.json)
    return 130 if any("stopped" in why for why in found.left_out.values()) else 0


def _usable(device: str) -> None:
    """Refuse a device that torch does not have here."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(
            f"--device {device} is not to be had: {str(error).splitlines()[0]}. Leave"
            " it out, for the CPU."
        ) from error


def _budget(told: str) -> tuple[str, float]:
    """Read a budget such as ``linf=8/255``."""
    norm, _, eps = told.partition("=")
    above, _, below = eps.partition("/")
    try:
        return norm, float(above) / float(below or 1)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{told!r}: write a budget as linf=8/255.") from None


def _made(chosen: argparse.Namespace) -> int:
    """Make an assignment, or the student edition, with the tools of the repository.

    They are not installed; options have the same names there.
    """
    sys.path.insert(0, str(Path.cwd()))
    name = "assignment" if chosen.command == "assign" else "student"
    try:
        tool = importlib.import_module(f"book._tools.{name}")
    except ModuleNotFoundError as error:
        print(f"{error}: run this in the book's repository.", file=sys.stderr)
        return 1
    options: list[str] = []
    for option, value in vars(chosen).items():
        if option == "unit" and value:
            options.append(value)
        elif option not in ("command", "unit") and value:
            options += [f"--{option}"] if value is True else [f"--{option}", str(value)]
    status: int = tool.main(options)
    return status


def _grade(chosen: argparse.Namespace) -> int:
    from crlib import grading
    from crlib.grading import nbgrader

    try:
        pack = grading.read(chosen.pack)
        submitted, course, out = chosen.submitted, chosen.nbgrader, chosen.out
        how = {"jobs": chosen.jobs, "seconds": chosen.seconds}
        if course:
            records = nbgrader.grade(pack, submitted, course, out, **how)
        else:
            records = grading.grade(pack, submitted, out, **how)
    except grading.PackError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. What is graded is in {chosen.out}.", file=sys.stderr)
        return 130
    missing = sorted({wall for record in records for wall in record.missing})
    if len(records) == 1:
        print(records[0].text())
    print(
        f"{len(records)} students: {chosen.out / 'grades.csv'}, and feedback for each."
    )
    print(f"Walls that could not be built here: {', '.join(missing) or 'none'}.")
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    chosen = _parser().parse_args(arguments)
    if chosen.command in ("assign", "student"):
        return _made(chosen)
    if chosen.command == "grade":
        return _grade(chosen)
    if chosen.command == "report":
        return _report(chosen)
    from crlib import studies

    if chosen.command == "list":
        print(*studies.names(), sep="\n")
        return 0
    try:
        study = studies.find(chosen.name)
        if chosen.command == "run":
            if chosen.profile not in study.grids:
                raise studies.StudyError(
                    f"{study.name} has no profile {chosen.profile!r}: choose one of"
                    f" {', '.join(study.grids)}."
                )
            grid = study.grids[chosen.profile]
            if chosen.known:
                studies.adopt(study, grid, chosen.known, chosen.out)
            with studies.cluster(chosen.cluster) as found:
                table = studies.sweep(
                    study,
                    grid,
                    chosen.out,
                    device=chosen.device,
                    jobs=-1 if found else chosen.jobs,
                    backend="dask" if found else chosen.backend,
                )
        else:
            table = studies.results(chosen.out, study)
    except studies.StudyError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. What is finished is in {chosen.out}.", file=sys.stderr)
        return 130
    if chosen.csv:
        # Nine digits: a run done again is compared with its row to one in a million.
        table.to_csv(chosen.csv, index=False, float_format="%.9g")
    print(table.to_string(index=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
