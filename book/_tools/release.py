"""The public address, the version that may be released, and the tag to install from.

    python -m book._tools.release address owner/name [--is]
    python -m book._tools.release check [--repository owner/name] [--tag vX.Y.Z]
    python -m book._tools.release tag

Between releases main carries a version such as 0.2.0.dev0: its notebooks install the
branch. A release carries a plain one, and its notebooks install the tag. ``check``
prints what stands against a release; ``tag`` makes the tag if nothing does.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

# Who has not said the address yet has this owner in _config.yml.
PLACEHOLDER = "example-org"
_URL = re.compile(r"(?m)^(repository:\n  url: )https://github\.com/(\S+)$")


def is_development(version: str) -> bool:
    """Whether ``version`` stands between two releases."""
    return ".dev" in version


def ref(version: str, settings: dict[str, Any]) -> str:
    """Return where notebooks and buttons lead: the tag, or between two the branch."""
    if is_development(version):
        return str(settings["repository"].get("branch", "main"))
    return f"v{version}"


def version_of(root: Path) -> str:
    """Return the version of crlib under ``root``, without importing it."""
    text = (root / "crlib/version.py").read_text("utf-8")
    found = re.search(r'__version__ = "([^"]+)"', text)
    assert found, "crlib/version.py states no version"
    return found[1]


def address(root: Path) -> str:
    """Return ``owner/name`` from _config.yml."""
    found = _URL.search((root / "_config.yml").read_text("utf-8"))
    assert found, "_config.yml states no repository at https://github.com"
    return found[2]


def set_address(root: Path, text: str) -> None:
    """Write the public address into _config.yml, the one place that knows it.

    Raises:
        ValueError: the address is not ``owner/name`` or an address on GitHub.
    """
    wanted = re.sub(r"^https://github\.com/|\.git$|/$", "", text)
    if not re.fullmatch(r"[\w-]+/[\w.-]+", wanted):
        raise ValueError(f"{text!r} is no address: make address ADDRESS=owner/name")
    path = root / "_config.yml"
    path.write_text(
        _URL.sub(rf"\g<1>https://github.com/{wanted}", path.read_text("utf-8")), "utf-8"
    )


def other_address(root: Path, repository: str) -> list[str]:
    """Return what is wrong with the address, if it is to be ``repository``."""
    told = address(root)
    if told.startswith(PLACEHOLDER):
        return ["_config.yml has no address yet: make address ADDRESS=owner/name"]
    if told != repository:
        return [f"_config.yml says {told}, this is {repository}"]
    return []


def faults(
    root: Path, repository: str | None = None, tag: str | None = None
) -> list[str]:
    """Return one line for each thing that stands against a release."""
    from book._tools import notebooks

    version = version_of(root)
    found = other_address(root, repository or address(root))
    if is_development(version):
        found.append(f"crlib/version.py says {version}: set the number of the release")
    if tag is not None and tag != f"v{version}":
        found.append(f"the tag {tag} is not v{version}, crlib/version.py's version")
    if f"version: {version}\n" not in (root / "CITATION.cff").read_text("utf-8"):
        found.append(f"CITATION.cff does not say version: {version}")
    if f"## {version}\n" not in (root / "CHANGELOG.md").read_text("utf-8"):
        found.append(f"CHANGELOG.md has no section {version}")
    return found + notebooks.differences(root)


def make_tag(root: Path, version: str) -> list[str]:
    """Tag what is committed; return why that cannot be."""

    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", *words], cwd=root, check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    if git("status", "--porcelain"):
        return ["something is not committed: git status"]
    if git("tag", "--list", f"v{version}"):
        return [f"the tag v{version} is there already: raise the version"]
    git("tag", "--annotate", f"v{version}", "--message", f"Release {version}")
    return []


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("."), help="the repository")
    parts = parser.add_subparsers(dest="part", required=True)
    naming = parts.add_parser("address")
    naming.add_argument("address", nargs="?", default="")
    naming.add_argument("--is", action="store_true", help="write nothing, compare")
    checking = parts.add_parser("check")
    checking.add_argument("--repository", help="owner/name of the public repository")
    checking.add_argument("--tag", help="the tag that is being released")
    parts.add_parser("tag")
    options = parser.parse_args(arguments)
    if options.part == "address" and vars(options)["is"]:
        found = other_address(options.root, options.address)
    elif options.part == "address":
        try:
            set_address(options.root, options.address)
        except ValueError as error:
            print(error, file=sys.stderr)
            return 1
        from book._tools import notebooks

        return notebooks.main(["--root", str(options.root)])
    elif options.part == "check":
        found = faults(options.root, options.repository, options.tag)
    else:
        version = version_of(options.root)
        found = faults(options.root) or make_tag(options.root, version)
        if not found:
            print(f"Tagged v{version}. Make it public: git push origin v{version}")
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
