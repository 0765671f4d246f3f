"""Where the runs of a study go: to this machine, or to a cluster of dask."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crlib.studies.engine import StudyError

__all__ = ["cluster"]

# The queues that dask-jobqueue knows, by the word before the colon.
QUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "sge": "SGECluster",
    "lsf": "LSFCluster",
    "htcondor": "HTCondorCluster",
}


@contextmanager
def cluster(where: str | None) -> Iterator[Any]:
    """Open a client of a dask cluster; joblib's backend ``"dask"`` then runs on it.

    A file for a queue holds the arguments of dask-jobqueue's class (``cores``,
    ``memory``, ``walltime``, ...) and ``jobs``, how many are asked for. A worker that
    is lost loses no run: dask gives what it had to another.

    Args:
        where: the address of a scheduler, ``"tcp://host:8786"``; a queue and a file of
            YAML, ``"slurm:file.yaml"``; or None, for no cluster.

    Yields:
        The client, or None.

    Raises:
        StudyError: packages that are missing, a queue that is not known, a file without
            ``jobs``, or a scheduler that does not answer.

    Example:
        >>> from crlib import studies
        >>> with studies.cluster(None) as client:
        ...     print(client)
        None
    """
    if where is None:
        yield None
        return
    try:
        from distributed import Client
    except ImportError as error:
        raise StudyError(
            "A cluster needs an extra; in the repository: pip install '.[scale]'."
        ) from error
    kind, _, rest = where.partition(":")
    if kind in ("tcp", "tls"):
        try:
            client = Client(where, timeout="10s")
        except OSError as error:
            raise StudyError(f"No scheduler answers at {where}.") from error
        with client:
            yield client
        return
    with _queue(kind, rest) as queue, Client(queue) as client:
        yield client


def _queue(kind: str, file: str) -> Any:
    """Return a cluster whose workers are jobs of a queue."""
    if kind not in QUEUES:
        known = ", ".join(f"{name}:file.yaml" for name in QUEUES)
        raise StudyError(f"{kind!r} is no cluster: write tcp://host:port, or {known}.")
    try:
        import dask_jobqueue
    except ImportError as error:
        raise StudyError(
            "A queue needs an extra; in the repository: pip install '.[queue]'."
        ) from error
    import yaml

    try:
        options = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
        jobs = options.pop("jobs")
    except (OSError, yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise StudyError(
            f"{file!r}: write a file of YAML with jobs, cores and memory."
        ) from error
    queue = getattr(dask_jobqueue, QUEUES[kind])(**options)
    queue.scale(jobs=jobs)
    return queue
