"""Many independent jobs: in this process, on this machine's cores, or on a cluster, by Dask."""

import os
import re
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from mambaasr.errors import UserError

JOBQUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
}
# Enough that no worker waits for the next item while the oldest result is still being computed.
IN_FLIGHT_PER_WORKER = 4
CONNECT_SECONDS = 30


class WorkerDied(UserError):
    """A worker process died on an item: killed, crashed, or out of memory."""


class ItemError(RuntimeError):
    """A function failed on one item; the message names the item and holds the traceback."""


def map_items(
    function: Callable[[Any], Any],
    items: Iterable[Any],
    nj: int = 1,
    description: str = "",
    cluster: str | Path | None = None,
    alone: bool = False,
    lost: Callable[[Any], Any] | None = None,
) -> Iterator[Any]:
    """Apply a function to items, in parallel, and yield the results in the items' order.

    With ``nj`` 1 everything runs in this process; otherwise in ``nj`` single-threaded worker
    processes that share the cores, or on the cluster that a yaml file names::

        scheduler: tcp://host:8786     # a running Dask scheduler, or
        jobqueue: slurm                # slurm, pbs, lsf, sge: nj jobs by dask-jobqueue
        queue: main                    # whatever else stands here goes to its cluster class
        memory: 8GB

    A worker process lives as long as the call: what is costly to load (a model) belongs into a
    module-level function with ``functools.lru_cache``, so that each worker loads it once.

    Args:
        function: a picklable function of one item (module level, or ``functools.partial`` of one).
        items: the items; small and picklable (paths rather than waveforms).
        nj: number of worker processes.
        description: what is being done, for the progress bar on stderr and for errors.
        cluster: path of a cluster yaml, or None.
        alone: one item at a time, in a worker process even with ``nj`` 1: who kills it is known.
        lost: gives the value for an item on which a worker process died, twice unless ``alone``.
            Side by side with others that may be no fault of the item. None: that is an error.

    Yields:
        ``function(item)`` for each item, in order.

    Raises:
        ItemError: the function raised; names the item.
        UserError: raised by the function (as it is), or the cluster yaml is wrong.
        WorkerDied: a worker died, and ``lost`` is None.
    """
    items = list(items)
    if nj < 1:
        raise UserError(f"nj must be at least 1, not {nj}")
    with ExitStack() as stack:
        if cluster is not None:
            client = stack.enter_context(_connect(cluster, nj))
            outcomes = _run_on(client, function, items, nj, alone)
        elif items and (alone or min(nj, len(items)) > 1):
            nj = 1 if alone else min(nj, len(items))
            client = stack.enter_context(_local_cluster(nj, failures=0 if alone else 1))
            outcomes = _run_on(client, function, items, nj, alone)
        else:
            outcomes = (_call(function, item) for item in items)
        stack.enter_context(closing(outcomes))
        progress = stack.enter_context(_progress_bar(len(items), description))
        for item, (value, error, trace) in zip(items, outcomes, strict=True):
            if isinstance(error, WorkerDied) and lost is not None:
                value, error = lost(item), None
            if isinstance(error, UserError):
                raise error
            if error is not None:
                what = f"{description}: " if description else ""
                raise ItemError(
                    f"{what}failed on {_label(item)}: {type(error).__name__}: {error}\n{trace}"
                ) from error
            progress.update()
            yield value


def worker_index() -> int:
    """Return this worker's number within its cluster, 0 in an ordinary process.

    Lets workers share several GPUs: ``cuda:{worker_index() % torch.cuda.device_count()}``.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return 0
    try:
        name = str(distributed.get_worker().name)
    except ValueError:
        return 0
    digits = re.findall(r"\d+", name)
    return int(digits[-1]) if digits else 0


def _call(function, item):
    """Return (value, exception, traceback text); exceptions travel as values to keep their item."""
    try:
        return function(item), None, ""
    except Exception as error:
        return None, _portable(error), traceback.format_exc()


def _portable(error):
    """Return the exception, or a plain one with its text where it cannot be pickled and back."""
    import pickle

    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


def _run_on(client, function, items, nj, alone):
    """Yield outcomes in order, with a bounded number of items submitted at any time."""
    from distributed import KilledWorker

    rest = iter(items)
    window = deque()

    def submit(count):
        for item in islice(rest, count):
            window.append((item, client.submit(_call, function, item, pure=False)))

    submit(1 if alone else IN_FLIGHT_PER_WORKER * nj)
    while window:
        item, future = window.popleft()
        try:
            outcome = future.result()
        except KilledWorker:
            error = WorkerDied(
                f"the worker process died on {_label(item)}: killed, crashed or out of memory; "
                f"try fewer jobs than {nj}, or 1 to see what happens"
            )
            outcome = None, error, ""
        submit(1)
        yield outcome


@contextmanager
def _local_cluster(nj, failures):
    """Start ``nj`` single-threaded worker processes on this machine, and stop them at the end.

    Of a worker that dies its items are tried again, each ``failures`` times.
    """
    import logging

    import dask
    from distributed import Client, LocalCluster

    threads = str(max(1, usable_cores() // nj))
    variables = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    before = dict(os.environ)
    settings = {
        "distributed.nanny.pre-spawn-environ": {name: threads for name in variables},
        "distributed.scheduler.allowed-failures": failures,
        # Long calls without the interpreter's lock released are normal here: no warnings, no
        # worker taken for dead.
        "distributed.admin.tick.limit": "1h",
        "distributed.scheduler.worker-ttl": None,
        "distributed.comm.timeouts.connect": "120s",
    }
    with dask.config.set(settings), _quiet_dask():
        with (
            LocalCluster(
                n_workers=nj,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                # Without a dashboard there still is a port: any free one, for this machine only.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                # An audio or model job has its own idea of memory; Dask would pause or kill it.
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            ) as cluster,
            Client(cluster) as client,
        ):
            # The nanny writes its children's variables into this process as well.
            for name in set(os.environ) - set(before):
                del os.environ[name]
            os.environ.update(before)
            yield client


@contextmanager
def _quiet_dask():
    """Keep Dask's running commentary out of the caller's log for a while."""
    import logging

    logger = logging.getLogger("distributed")
    silent, propagate = logging.NullHandler(), logger.propagate
    logger.addHandler(silent)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagate
        logger.removeHandler(silent)


@contextmanager
def _connect(path, nj):
    """Connect to the cluster that a yaml names; see :func:`map_items`."""
    from distributed import Client

    config = _read_cluster(path)
    if "scheduler" in config:
        address = config["scheduler"]
        try:
            client = Client(address, timeout=CONNECT_SECONDS)
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no Dask scheduler answers at {address}: {error}") from error
        with client:
            yield client
        return
    name = config.pop("jobqueue")
    try:
        import dask_jobqueue
    except ImportError as error:
        raise UserError(
            f"{path}: jobqueue: {name} needs dask-jobqueue: pip install dask-jobqueue"
        ) from error
    options = {"cores": 1, "processes": 1, "memory": "8GB", **config}
    try:
        queue = getattr(dask_jobqueue, JOBQUEUES[name])(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {JOBQUEUES[name]} refuses these options: {error}") from error
    with queue as cluster, Client(cluster) as client:
        cluster.scale(n=nj)
        yield client


def _read_cluster(path):
    """Read and check a cluster yaml; return it as a dict."""
    try:
        config = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{path}: cannot be read as a cluster yaml: {error}") from error
    if not isinstance(config, dict) or ("scheduler" in config) == ("jobqueue" in config):
        raise UserError(
            f"{path}: name either 'scheduler: tcp://host:port' or 'jobqueue: {'|'.join(JOBQUEUES)}'"
        )
    if "scheduler" in config and set(config) != {"scheduler"}:
        others = ", ".join(sorted(set(config) - {"scheduler"}))
        raise UserError(f"{path}: a running scheduler takes no other options: remove {others}")
    if "jobqueue" in config and config["jobqueue"] not in JOBQUEUES:
        raise UserError(
            f"{path}: unknown jobqueue {config['jobqueue']!r}; known: {', '.join(JOBQUEUES)}"
        )
    return config


def usable_cores() -> int:
    """Return how many cores this process may use (a container or taskset may allow fewer)."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _progress_bar(total, description):
    """Return a tqdm bar on stderr; a log file gets a line now and then instead of a flood."""
    from tqdm import tqdm

    live = sys.stderr.isatty()
    return tqdm(
        total=total,
        desc=description or None,
        file=sys.stderr,
        mininterval=0.1 if live else 30,
        disable=total == 0,
    )


def _label(item, limit=200):
    """Return a short text that names an item in an error."""
    text = str(item)
    return text if len(text) <= limit else text[: limit - 3] + "..."
