"""Many independent jobs: in this process, on this machine's cores, or on a cluster, by Dask."""

import atexit
import functools
import os
import re
import shlex
import signal
import sys
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import islice
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

import yaml

from mambaasr.errors import TransientError, UserError

JOBQUEUES = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
}
# Enough that no worker waits for the next item while the oldest result is still being computed.
IN_FLIGHT_PER_WORKER = 4
CONNECT_SECONDS = 30
# So often it is said why nothing is computed.
SAY_SECONDS = 30
# So long no worker may be there: a job may wait for a day in a cluster's queue.
WAIT_SECONDS = {"scheduler": 600, "jobqueue": 24 * 3600}
# So long all workers may be busy for others.
BUSY_SECONDS = 24 * 3600
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
# The same for every kind of cluster: long calls without the interpreter's lock released are normal
# here, so no warnings and no worker taken for dead; an audio or model job has its own idea of
# memory, and Dask would pause or kill it.
_SETTINGS = {
    "distributed.admin.tick.limit": "1h",
    "distributed.scheduler.worker-ttl": None,
    "distributed.comm.timeouts.connect": "120s",
    **dict.fromkeys(
        (f"distributed.worker.memory.{what}" for what in ("target", "spill", "pause", "terminate")),
        False,
    ),
}


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
        wait: 3600                     # seconds without a worker until that is an error

    A local worker process lives as long as the call, a cluster's client and its workers as long as
    this process: what is costly to load (a model) belongs into a module-level function with
    ``functools.lru_cache``, so that each worker loads it once. Where nothing is computed because
    there is no worker, or all are busy for others, this is said every 30 s; busy for others they
    may be for a day, whatever ``wait`` is, unless it is longer.

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
        UserError: raised by the function (as it is), or the cluster yaml is wrong, or nothing was
            computed for too long.
        TransientError: the scheduler has gone.
        WorkerDied: a worker died, and ``lost`` is None.
    """
    items = list(items)
    if nj < 1:
        raise UserError(f"nj must be at least 1, not {nj}")
    with ExitStack() as stack:
        if cluster is not None:
            client, wait = _connected(os.path.abspath(cluster), nj)
            outcomes = _run_on(client, function, items, nj, wait, alone)
        elif items and (alone or min(nj, len(items)) > 1):
            nj = 1 if alone else min(nj, len(items))
            client = stack.enter_context(_local_cluster(nj, failures=0 if alone else 1))
            outcomes = _run_on(client, function, items, nj, WAIT_SECONDS["scheduler"], alone)
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


def _run_on(client, function, items, nj, wait, alone):
    """Yield outcomes in order, with a bounded number of items submitted at any time.

    For ``wait`` seconds there may be nobody who computes them.
    """
    from distributed import CancelledError, KilledWorker

    rest = iter(items)
    window = deque()

    def submit(count):
        for item in islice(rest, count):
            window.append((item, client.submit(_call, function, item, pure=False)))

    submit(1 if alone else IN_FLIGHT_PER_WORKER * nj)
    try:
        while window:
            item, future = window.popleft()
            try:
                outcome = _result(client, [future, *(each for _, each in window)], wait)
            except KilledWorker:
                error = WorkerDied(
                    f"the worker process died on {_label(item)}: killed, crashed or out of memory; "
                    f"try fewer jobs than {nj}, or 1 to see what happens"
                )
                outcome = None, error, ""
            except CancelledError as error:
                raise TransientError(
                    f"the Dask scheduler {client.scheduler.address} has gone: {error}"
                ) from error
            submit(1)
            yield outcome
    finally:
        # The client may outlive this call.
        if client.status == "running":
            client.cancel([future for _, future in window])


def _result(client, futures, wait):
    """Return the first future's result; say every now and then why nothing is computed.

    Raises:
        UserError: for ``wait`` seconds no worker was there, or for a day each was busy for others.
    """
    since, before = 0.0, None
    while True:
        try:
            return futures[0].result(timeout=SAY_SECONDS)
        except TimeoutError:  # those of the function come as values
            reason, busy = _why_idle(client, futures)
        if reason is None:
            before = None
            continue
        if busy != before:
            since, before = time.monotonic() - SAY_SECONDS, busy
        waited = time.monotonic() - since
        limit = max(wait, BUSY_SECONDS) if busy else wait
        if waited >= limit:
            hint = "" if busy else ", `wait:` in the cluster's yaml is the limit"
            raise UserError(f"{reason}; waited for {waited:.0f} s{hint}")
        say(f"waiting for {waited:.0f} s of at most {limit:.0f}: {reason}")


def say(message: str) -> None:
    """Print a line with the time beside a progress bar."""
    from tqdm import tqdm

    tqdm.write(f"{time.strftime('%H:%M:%S')} {message}", file=sys.stderr)


def _why_idle(client, futures):
    """Return why none of some futures is computed, and whether others are in the workers instead.

    None for the reason where one is or has been computed.
    """
    scheduler = f"the Dask scheduler {client.scheduler.address}"
    try:
        workers = client.scheduler_info()["workers"]
        running = {key for found in client.call_stack().values() for key in found}
    except OSError as error:
        return f"{scheduler} does not answer: {error}", False
    if futures[0].done() or running & {each.key for each in futures}:
        return None, False
    if workers:
        return f"{scheduler}: its {len(workers)} workers are busy for others", True
    queued = len(getattr(client.cluster, "workers", ()))
    more = f", {queued} jobs are queued" if queued else ""
    return f"{scheduler} has no worker yet{more}", False


@contextmanager
def _local_cluster(nj, failures):
    """Start ``nj`` single-threaded worker processes on this machine, and stop them at the end.

    Of a worker that dies its items are tried again, each ``failures`` times.
    """
    import logging

    import dask
    from distributed import Client, LocalCluster

    threads = str(max(1, usable_cores() // nj))
    before = dict(os.environ)
    settings = {
        "distributed.nanny.pre-spawn-environ": dict.fromkeys(_THREADS, threads),
        "distributed.scheduler.allowed-failures": failures,
    }
    with ExitStack() as stack:
        stack.enter_context(dask.config.set(_SETTINGS | settings))
        stack.enter_context(_quiet_dask())
        with _kept_from_children(signal.SIGINT):
            cluster = LocalCluster(
                n_workers=nj,
                threads_per_worker=1,
                processes=True,
                dashboard_address=None,
                # Without a dashboard there still is a port: any free one, for this machine only.
                scheduler_kwargs={"dashboard_address": "127.0.0.1:0"},
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            )
            stack.enter_context(cluster)
        client = stack.enter_context(Client(cluster))
        # The nanny writes its children's variables into this process as well.
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)
        yield client


@contextmanager
def _kept_from_children(number):
    """Keep a signal from processes that threads begun in a block start; here it comes after it.

    Ctrl-C reaches every process of a terminal. This one ends its workers itself, in order; they
    would print a traceback each.
    """
    resource_tracker.ensure_running()  # starting it later would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [number])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


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


@functools.cache
def _open_clients():
    """Return the clients of clusters by the path of their yaml, each with what closes it.

    One serves all calls of a process: the jobs of a queue would be queued anew for each.
    """
    found: dict[str, tuple[Any, float, ExitStack]] = {}
    atexit.register(close_clients)
    return found


def close_clients() -> None:
    """Leave the clusters of this process, which ends the jobs that it has queued."""
    found = _open_clients()
    while found:
        found.popitem()[1][2].close()


def _connected(path, nj):
    """Return a client of the cluster that a yaml names, and how long it may lack workers [s]."""
    found = _open_clients()
    if path in found and found[path][0].status != "running":
        found.pop(path)[2].close()
    if path not in found:
        config = _read_cluster(path)
        default = WAIT_SECONDS["scheduler" if "scheduler" in config else "jobqueue"]
        wait = config.pop("wait", default)
        with ExitStack() as stack:
            client = _connect(path, config, stack)
            found[path] = client, wait, stack.pop_all()
    client, wait, _ = found[path]
    if client.cluster is not None:
        client.cluster.scale(n=nj)
    return client, wait


def _connect(path, config, stack):
    """Return a client of a cluster, which ends with a stack; see :func:`map_items`."""
    import dask
    from distributed import Client

    stack.enter_context(dask.config.set(_SETTINGS))
    stack.enter_context(_quiet_dask())
    if "scheduler" in config:
        address = config["scheduler"]
        try:
            return stack.enter_context(Client(address, timeout=CONNECT_SECONDS))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: no Dask scheduler answers at {address}: {error}") from error
    name = config.pop("jobqueue")
    try:
        import dask_jobqueue
    except ImportError as error:
        raise UserError(
            f"{path}: jobqueue: {name} needs dask-jobqueue: pip install dask-jobqueue"
        ) from error
    options = {"cores": 1, "processes": 1, "memory": "8GB", **config}
    # A worker does one item at a time, with all its cores, and the settings of local ones.
    one = ["--nthreads", "1", "--memory-limit", "0"]
    options["worker_extra_args"] = [*one, *options.get("worker_extra_args", ())]
    prologue = _exports(int(options["cores"]) // int(options["processes"]))
    options["job_script_prologue"] = [*prologue, *options.get("job_script_prologue", ())]
    try:
        queue = getattr(dask_jobqueue, JOBQUEUES[name])(**options)
    except (TypeError, ValueError) as error:
        raise UserError(f"{path}: {JOBQUEUES[name]} refuses these options: {error}") from error
    return stack.enter_context(Client(stack.enter_context(queue)))


def _exports(threads):
    """Return the shell's lines that give a worker elsewhere the settings of local ones."""
    values = dict.fromkeys(_THREADS, max(1, threads))
    for name, value in _SETTINGS.items():
        words = name.replace(".", "__").replace("-", "_").upper()
        values[f"DASK_{words}"] = value
    return [f"export {name}={shlex.quote(str(value))}" for name, value in values.items()]


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
    wait = config.get("wait", 1)
    if isinstance(wait, bool) or not isinstance(wait, (int, float)) or wait <= 0:
        raise UserError(f"{path}: wait is {wait!r}; it must be a number of seconds above 0")
    if "scheduler" in config and (other := set(config) - {"scheduler", "wait"}):
        others = ", ".join(sorted(other))
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
