"""Original files: the user's, the cached, or downloaded, always with a checksum."""

import os
from pathlib import Path
from typing import Any


class DataError(RuntimeError):
    """A data set is absent, unreachable or damaged; the message says what to do."""


def user_folder(names: list[str]) -> Path | None:
    """Return the folder under ``CRLIB_DATA`` that holds this set, if one is named."""
    root = os.environ.get("CRLIB_DATA")
    if not root:
        return None
    if not Path(root).is_dir():
        raise DataError(f"CRLIB_DATA names {root}, which is not a folder.")
    for name in names:
        if (Path(root) / name).is_dir():
            return Path(root) / name
    return Path(root)


def obtain(
    name: str, home: str, sha256: str, *, folder: Path | None, progress: bool
) -> Path:
    """Return where an original file is: the user's, the cached, or downloaded.

    Args:
        name: of the file.
        home: address that the name follows.
        sha256: checksum of the file.
        folder: where the user may have it.
        progress: show a progress bar while downloading.

    Raises:
        DataError: the file is damaged, or unreachable.
    """
    import pooch
    import requests

    if folder is not None and (folder / name).is_file():
        if pooch.file_hash(str(folder / name)) != sha256:
            raise DataError(
                f"{folder / name} is damaged or not the original (its checksum"
                " differs): fetch it again."
            )
        return folder / name
    cache = Path(os.environ.get("CRLIB_CACHE") or pooch.os_cache("crlib"))
    try:
        path = pooch.retrieve(
            home + name,
            known_hash=f"sha256:{sha256}",
            fname=name,
            path=cache,
            downloader=Resumable(cache / f"{name}.part", progress),
        )
    except (requests.RequestException, OSError, ValueError) as error:
        damaged = isinstance(error, ValueError) and not isinstance(error, OSError)
        if damaged:
            (cache / f"{name}.part").unlink(missing_ok=True)
        reason = "its checksum differs" if damaged else f"{error}"
        raise DataError(
            f"{name} could not be had from {home} ({reason}). Three ways to get it:"
            " (1) connect to the network and try again; a download that broke off is"
            f" resumed. (2) Fetch {home}{name} elsewhere, put it into a folder and name"
            " that folder in the environment variable CRLIB_DATA. (3) Put the images"
            " there as train/<class>/*.png and test/<class>/*.png."
        ) from error
    return Path(path)


class Resumable:
    """A downloader for pooch that goes on where a broken download stopped."""

    def __init__(self, part: Path, progress: bool) -> None:
        self.part, self.progress = part, progress

    def __call__(self, url: str, output_file: Any, _: Any) -> None:
        import requests

        from crlib.progress import Bar

        self.part.parent.mkdir(parents=True, exist_ok=True)
        have = self.part.stat().st_size if self.part.exists() else 0
        headers = {"Range": f"bytes={have}-"} if have else {}
        with requests.get(url, headers=headers, stream=True, timeout=30) as answer:
            whole = answer.status_code == 416
            if not whole:
                answer.raise_for_status()
                have = have if answer.status_code == 206 else 0
                size = int(answer.headers.get("Content-Length", 0)) + have
                bar = Bar(
                    total=size or None,
                    initial=have,
                    unit="B",
                    unit_scale=True,
                    desc=self.part.stem,
                    disable=not self.progress,
                )
                with bar, self.part.open("ab" if have else "wb") as out:
                    for chunk in answer.iter_content(1 << 16):
                        out.write(chunk)
                        bar.update(len(chunk))
                if size and self.part.stat().st_size < size:
                    raise requests.ConnectionError("the connection broke off")
        os.replace(self.part, output_file)
