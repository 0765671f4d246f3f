"""Find a Chromium for the browser tests, or install Debian's where that is allowed."""

import os
import shutil
import subprocess

MACOS = "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"
NAMES = ("chromium", "chromium-browser", "google-chrome", MACOS)


def find() -> str | None:
    """Return the path of the browser that ``CHROMIUM`` names or the PATH holds."""
    named = os.environ.get("CHROMIUM")
    for name in (named, *NAMES) if named else NAMES:
        if path := shutil.which(name):
            return path
    return None


def install() -> str | None:
    """Return a browser, after ``apt-get install chromium`` if there is none yet."""
    if (path := find()) or not shutil.which("apt-get"):
        return path
    as_root: list[str] = []
    if os.geteuid() != 0:
        as_root = ["sudo", "--non-interactive"]
        if not shutil.which("sudo") or subprocess.call([*as_root, "true"]):
            return None
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for step in (["update"], ["install", "--yes", "chromium"]):
        print(f"apt-get {' '.join(step)}", flush=True)
        subprocess.call(
            [*as_root, "apt-get", "--quiet=2", *step],
            env=quiet,
            stdout=subprocess.DEVNULL,
        )
    return find()
