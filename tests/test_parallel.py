"""Tests of mambaasr.parallel."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from functools import lru_cache
from types import SimpleNamespace

import pytest

from mambaasr import parallel
from mambaasr.errors import TransientError, UserError
from mambaasr.parallel import ItemError, map_items, worker_index


def square(x):
    return x * x


def square_late(x):
    """The first items are the slowest: their results still come first."""
    time.sleep(0.2 if x < 2 else 0)
    return x * x


def square_soon(x):
    time.sleep(0.05)
    return x * x


def fail_on_three(x):
    if x == 3:
        raise ValueError("bad luck")
    return x


def refuse(x):
    raise UserError(f"{x}: line 7: mend it")


class Unpicklable(Exception):
    def __init__(self, a, b):
        super().__init__(a)


def raise_unpicklable(x):
    raise Unpicklable("odd", x)


@lru_cache
def load_resource():
    return os.getpid(), time.monotonic_ns()


def use_resource(_):
    time.sleep(0.05)
    return load_resource()


def describe_process(_):
    import torch

    time.sleep(0.1)
    return os.getpid(), os.environ["OMP_NUM_THREADS"], torch.get_num_threads(), worker_index()


def kill_own_process(x):
    if x == "deadly":
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def test_in_process_is_lazy_and_ordered():
    seen = []
    results = map_items(lambda x: seen.append(x) or x, [3, 1, 2])
    assert next(results) == 3
    assert seen == [3]
    assert list(results) == [1, 2]


@pytest.mark.parametrize("nj", [1, 2])
def test_no_items(nj):
    assert list(map_items(square, [], nj=nj)) == []


def test_results_come_in_input_order(capfd):
    assert list(map_items(square_late, range(30), nj=2)) == [x * x for x in range(30)]
    out, err = capfd.readouterr()
    assert out == ""
    assert "distributed" not in err and "Port" not in err


@pytest.mark.parametrize("nj", [1, 2])
def test_error_names_the_item(nj):
    with pytest.raises(ItemError, match=r"(?s)squares: failed on 3: ValueError: bad luck.*line"):
        list(map_items(fail_on_three, range(6), nj=nj, description="squares"))


@pytest.mark.parametrize("nj", [1, 2])
def test_user_error_stays_as_it_is(nj):
    with pytest.raises(UserError, match="^a.txt: line 7: mend it$"):
        list(map_items(refuse, ["a.txt", "b.txt"], nj=nj))


def test_error_that_cannot_be_pickled():
    with pytest.raises(ItemError, match="failed on 0: .*Unpicklable: odd"):
        list(map_items(raise_unpicklable, range(2), nj=2))


def test_workers_keep_a_resource_share_cores_and_have_an_index(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    resources = set(map_items(use_resource, range(12), nj=2))
    assert len(resources) == len({pid for pid, _ in resources}) == 2
    processes = set(map_items(describe_process, range(12), nj=2))
    share = str(max(1, len(os.sched_getaffinity(0)) // 2))
    assert {p[1] for p in processes} == {share}
    assert {p[2] for p in processes} == {int(share)}
    assert {p[3] for p in processes} == {0, 1}
    assert "OMP_NUM_THREADS" not in os.environ
    assert worker_index() == 0


def test_dead_worker_names_the_item():
    with pytest.raises(UserError, match="died on deadly"):
        list(map_items(kill_own_process, ["fine", "deadly"], nj=2))


def test_an_item_that_kills_its_worker_is_lost_by_itself():
    items = ["fine", "deadly", "good"]
    for options in (dict(nj=2), dict(alone=True)):
        found = list(map_items(kill_own_process, items, lost=lambda item: f"{item}!", **options))
        assert found[1] == "deadly!"
        # Beside it others may be lost too, which shows only when each runs alone.
        assert [word.rstrip("!") for word in found] == items
    assert found == ["fine", "deadly!", "good"]


def test_closing_early_stops_the_workers():
    results = map_items(describe_process, range(100), nj=2)
    pid = next(results)[0]
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("jobqueue: condor", "unknown jobqueue 'condor'; known: slurm, pbs"),
        ("queue: main", "name either 'scheduler"),
        ("scheduler: a\njobqueue: slurm", "name either 'scheduler"),
        ("scheduler: tcp://h:1\nqueue: main", "remove queue"),
        ("scheduler: tcp://h:1\nwait: soon", "wait is 'soon'; it must be a number of seconds"),
        ("- a\n- {", "cannot be read"),
        ("", "name either"),
    ],
)
def test_bad_cluster_yaml(tmp_path, text, message):
    path = tmp_path / "cluster.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(map_items(square, [1], cluster=path))


def test_missing_jobqueue_package_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", None)
    path = tmp_path / "cluster.yaml"
    path.write_text("jobqueue: slurm\nqueue: main\n")
    with pytest.raises(UserError, match="pip install dask-jobqueue"):
        list(map_items(square, [1], cluster=path))


@pytest.fixture
def cluster(tmp_path):
    """Start a cluster of some workers in this process; the fixture gives the path of its yaml."""
    from distributed import LocalCluster

    with contextlib.ExitStack() as stack:

        def start(workers, more=""):
            options = {"n_workers": workers, "processes": False, "dashboard_address": None}
            running = stack.enter_context(LocalCluster(protocol="tcp://", **options))
            stack.callback(parallel.close_clients)
            path = tmp_path / "cluster.yaml"
            path.write_text(f"scheduler: {running.scheduler_address}\n{more}")
            return path, running

        yield start


def test_running_scheduler_gets_one_client(cluster):
    path, running = cluster(1)
    for _ in range(2):
        assert list(map_items(square, range(5), cluster=path)) == [0, 1, 4, 9, 16]
    assert len(running.scheduler.clients) == 2  # its own and ours


def test_a_scheduler_without_workers(cluster, monkeypatch, capsys):
    monkeypatch.setattr(parallel, "SAY_SECONDS", 0.2)
    path, running = cluster(0, "wait: 1\n")
    message = "has no worker yet; waited for 1 s, `wait:` in the cluster's yaml is the limit"
    with pytest.raises(UserError, match=message):
        list(map_items(square, range(5), cluster=path))
    said = capsys.readouterr().err
    assert said.count(f"the Dask scheduler {running.scheduler_address} has no worker yet") >= 2
    # One that comes later is enough.
    running.scale(1)
    assert list(map_items(square, range(2), cluster=path)) == [0, 1]


def test_a_scheduler_whose_workers_are_busy_for_others(cluster, monkeypatch, capsys):
    from distributed import Client

    monkeypatch.setattr(parallel, "SAY_SECONDS", 0.2)
    path, running = cluster(1, "wait: 1\n")  # of a scheduler without workers
    with Client(running.scheduler_address, set_as_default=False) as other:
        held = [other.submit(time.sleep, 1.5, pure=False, priority=9) for _ in range(8)]
        _wait(other.call_stack, 20)
        assert list(map_items(square, [3], cluster=path)) == [9]
        monkeypatch.setattr(parallel, "BUSY_SECONDS", 1)
        held += [other.submit(time.sleep, 3, pure=False, priority=9) for _ in range(8)]
        with pytest.raises(UserError, match="busy for others; waited for [1-9] s$"):
            list(map_items(square, [3], cluster=path))
        other.cancel(held)
    said = capsys.readouterr().err
    assert "are busy for others" in said


def test_a_scheduler_that_goes_is_named(cluster, monkeypatch):
    monkeypatch.setattr(parallel, "CONNECT_SECONDS", 1)
    path, running = cluster(1)
    results = map_items(square_soon, range(200), cluster=path)
    assert next(results) == 0
    running.close()
    with pytest.raises(TransientError, match="the Dask scheduler tcp://.* has gone"):
        list(results)


def test_workers_of_a_queue_have_the_settings_of_local_ones(tmp_path, monkeypatch):
    """dask-jobqueue's classes, in whose place a local cluster notes what it gets."""
    from distributed import LocalCluster

    seen = {}

    def queue(**options):
        seen.update(options)
        return LocalCluster(n_workers=0, processes=False, dashboard_address=None)

    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace(SLURMCluster=queue))
    path = tmp_path / "cluster.yaml"
    path.write_text("jobqueue: slurm\nqueue: main\ncores: 4\njob_script_prologue: [module load x]")
    try:
        assert list(map_items(square, range(3), nj=2, cluster=path)) == [0, 1, 4]
    finally:
        parallel.close_clients()
    assert (seen["queue"], seen["cores"], seen["memory"]) == ("main", 4, "8GB")
    assert seen["worker_extra_args"] == ["--nthreads", "1", "--memory-limit", "0"]
    prologue = seen["job_script_prologue"]
    assert "export OMP_NUM_THREADS=4" in prologue and prologue[-1] == "module load x"
    assert "export DASK_DISTRIBUTED__ADMIN__TICK__LIMIT=1h" in prologue


def test_no_scheduler_at_the_address(tmp_path, monkeypatch):
    monkeypatch.setattr("mambaasr.parallel.CONNECT_SECONDS", 0.5)
    path = tmp_path / "cluster.yaml"
    path.write_text("scheduler: tcp://127.0.0.1:9")
    with pytest.raises(UserError, match="no Dask scheduler answers at tcp://127.0.0.1:9"):
        list(map_items(square, [1], cluster=path))


PARENT = """
import os, sys, time
sys.path.insert(0, {folder!r})
from test_parallel import announce
from mambaasr.parallel import map_items
if __name__ == "__main__":
    list(map_items(announce, [{pids!r}] * 8, nj=2))
"""


def announce(folder):
    with open(os.path.join(folder, str(os.getpid())), "w"):
        time.sleep(60)


def test_workers_die_with_a_killed_parent(tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=os.path.dirname(__file__), pids=str(pids)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen([sys.executable, str(script)], env=environment)
    try:
        _wait(lambda: len(os.listdir(pids)) == 2, 60)
    finally:
        parent.kill()
        parent.wait()
    _wait(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in os.listdir(pids)), 10)


def test_ctrl_c_ends_the_workers_without_a_word(tmp_path):
    pids = tmp_path / "pids"
    pids.mkdir()
    script = tmp_path / "parent.py"
    script.write_text(PARENT.format(folder=os.path.dirname(__file__), pids=str(pids)))
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    parent = subprocess.Popen(
        [sys.executable, str(script)],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    _wait(lambda: len(os.listdir(pids)) == 2, 60)
    os.killpg(parent.pid, signal.SIGINT)  # as a terminal does
    said = parent.communicate(timeout=60)[1]
    assert said.count("Traceback") == 1 and "\nKeyboardInterrupt" in said, "the parent's own"
    _wait(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in os.listdir(pids)), 10)


def _wait(condition, seconds):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.1)
