"""A bar shares no lock with a process that it may outlive, and starts no thread."""

import threading
from pathlib import Path

import pytest
import torch

from crlib.progress import Bar, Kept


def test_a_bar_has_a_lock_of_its_own_process_and_no_thread() -> None:
    before = threading.active_count()
    with Bar(range(3), leave=False) as bar:
        assert list(bar) == [0, 1, 2]
        assert threading.active_count() == before
    # tqdm's default is a lock of multiprocessing beside one of threading.
    assert isinstance(Bar.get_lock(), type(threading.RLock()))


@pytest.mark.filterwarnings("ignore:Using a non-tuple:UserWarning")
@pytest.mark.parametrize("text", ["", ".", "no", "PK", "80", "(lp0\n."])
def test_a_file_of_something_else_is_refused(text: str, tmp_path: Path) -> None:
    file = tmp_path / "kept.pt"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"kept.pt keeps no parts .* name another"):
        Kept(file, "key").parts()
    for other in (torch.eye(2), [1], {"key": "key"}):
        torch.save(other, file)
        with pytest.raises(ValueError, match="name another"):
            Kept(file, "key").parts()
    with pytest.raises(ValueError, match="name another"):
        Kept(tmp_path, "key").parts()


def test_a_folder_that_is_not_there_is_told_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no folder .*none: make it"):
        Kept(tmp_path / "none" / "kept.pt", "key").parts()


def test_what_is_kept_is_found_by_its_key(tmp_path: Path) -> None:
    kept = Kept(tmp_path / "kept.pt", "key")
    assert kept.parts() == []
    kept.keep([1, 2])
    assert kept.parts() == [1, 2] and Kept(kept.path, "other").parts() == []
