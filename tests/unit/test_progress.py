"""A bar shares no lock with a process that it may outlive, and starts no thread."""

import threading

from crlib.progress import Bar


def test_a_bar_has_a_lock_of_its_own_process_and_no_thread() -> None:
    before = threading.active_count()
    with Bar(range(3), leave=False) as bar:
        assert list(bar) == [0, 1, 2]
        assert threading.active_count() == before
    # tqdm's default is a lock of multiprocessing beside one of threading.
    assert isinstance(Bar.get_lock(), type(threading.RLock()))
