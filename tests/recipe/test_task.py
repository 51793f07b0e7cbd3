"""Tasks of a recipe: skipped when done and still right, redone and resumed otherwise."""

import csv
import errno
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mambaasr.errors import UserError
from mambaasr.fingerprint import fingerprint
from mambaasr.recipe import process
from mambaasr.recipe import task as module
from mambaasr.recipe.process import exits_on_sigterm
from mambaasr.recipe.task import Task, changes, options, run, without_launcher, would_run

# Runs a task as the driver does: its folder, what it writes or "", and its command.
RUN = """import sys
from mambaasr.recipe.task import Task, run
folder, out, *command = sys.argv[1:]
sys.exit(run(Task("x", command, folder, outputs=[out] if out else [])))
"""
DRIVER = [sys.executable, "-c", RUN]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A task that copies a file, in a folder whose name would hurt a careless shell."""
    folder = tmp_path / "a b,'c' $(touch pwned)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "in").write_text("one\n")

    def make(**changed):
        given = {"title": "copy", "folder": folder, "inputs": ["in"]}
        given |= {"command": ["cp", "in", "out"], "outputs": ["out"]}
        return Task(**given | changed)

    return make


def message_of(task, capsys, **how):
    """Run a task and return what it said."""
    assert run(task, **how) == 0
    return capsys.readouterr().out


def test_done_step_is_skipped(copy, capsys):
    assert "not done yet" in message_of(copy(), capsys)
    before = os.stat("out").st_mtime_ns
    assert "done already" in message_of(copy(), capsys)
    assert os.stat("out").st_mtime_ns == before
    assert "--force" in message_of(copy(), capsys, force=True)


def test_changed_input_output_and_option_are_named(copy, capsys, tmp_path):
    message_of(copy(), capsys)
    with open("in", "w") as stream:
        stream.write("two\n")
    assert "in changed" in message_of(copy(), capsys)
    with open("out") as stream:
        assert stream.read() == "two\n"
    os.unlink("out")
    assert "out is missing" in message_of(copy(), capsys)
    task = copy(command=["cp", "--backup=none", "in", "out"])
    assert "--backup: not given, now none" in message_of(task, capsys)


def test_optional_input_that_appears_counts(copy, capsys):
    task = copy(inputs=["in", "segments"])
    message_of(task, capsys)
    assert "done already" in message_of(task, capsys)
    open("segments", "w").close()
    assert "segments is new" in message_of(task, capsys)


def test_an_input_without_a_name_is_not_the_folder(copy, capsys):
    message_of(copy(inputs=["in", ""]), capsys)
    open("other", "w").close()
    assert "done already" in message_of(copy(inputs=["in", ""]), capsys)


def test_ignored_options_do_not_count(copy, capsys):
    def task(n):
        return copy(command=["env", f"--chdir={n}", "true"], outputs=[], ignore=["chdir"])

    message_of(task("."), capsys)
    assert "done already" in message_of(task("/"), capsys)


def test_touched_but_equal_files_change_nothing(copy, capsys):
    message_of(copy(), capsys)
    os.utime("in", (1, 1))
    assert "done already" in message_of(copy(), capsys)


def test_only_outputs_asked_for_now_count(copy, capsys):
    open("more", "w").close()
    message_of(copy(), capsys)
    more = copy(outputs=["more"])
    os.unlink("out")
    assert "done already" in message_of(more, capsys)
    os.unlink("more")
    with pytest.raises(UserError, match="ended without writing more"):
        run(more)
    assert "copy: more is missing" in capsys.readouterr().out


def test_kept_outputs_may_be_changed_by_hand(copy, capsys):
    task = copy(keep_outputs=True)
    message_of(task, capsys)
    with open("out", "w") as stream:
        stream.write("mended\n")
    assert "done already" in message_of(task, capsys)
    with open("out") as stream:
        assert stream.read() == "mended\n"
    os.unlink("out")
    assert "out is missing" in message_of(task, capsys)


def test_changed_audio_behind_a_wav_scp_is_noticed(copy, capsys):
    for name in ("a b.wav", "c.wav"):
        with open(name, "w") as stream:
            stream.write("RIFF")
        os.utime(name, (1, 1))
    with open("wav.scp", "w") as stream:
        stream.write("1 a b.wav\n2\tc.wav\n")
    task = copy(inputs=["wav.scp"])
    message_of(task, capsys)
    assert "done already" in message_of(task, capsys)
    for change in (
        lambda: os.utime("a b.wav", (2, 2)),
        lambda: open("a b.wav", "a").write("more"),
        lambda: os.unlink("c.wav"),
    ):
        change()
        said = message_of(task, capsys)
        assert "copy: the audio of wav.scp changed" in said and " wav.scp changed;" not in said
        assert "done already" in message_of(task, capsys)


def test_a_file_that_the_command_names_is_an_input(copy, capsys):
    open("more", "w").close()
    task = copy(command=["env", "F=more", "cp", "in", "out"], inputs=[])
    message_of(task, capsys)
    assert "done already" in message_of(task, capsys)
    for name in ("in", "more"):
        with open(name, "a") as stream:
            stream.write("changed\n")
        assert f"copy: {name} changed" in message_of(task, capsys)


def test_a_corpus_may_come_with_the_step_and_counts_from_then_on(copy, capsys):
    command = ["bash", "-c", "mkdir -p corpus; touch corpus/text out"]
    task = copy(command=command, corpora=["corpus"])
    message_of(task, capsys)
    assert "done already" in message_of(task, capsys)
    with open("corpus/text", "w") as stream:
        stream.write("corrected\n")
    assert "copy: corpus changed" in message_of(task, capsys)
    assert "done already" in message_of(task, capsys)
    shutil.rmtree("corpus")  # to save room
    assert "done already" in message_of(task, capsys)


def test_words_that_are_no_corpus(copy, capsys):
    """A file, nothing, and the folder of the task's own notes."""
    task = copy(corpora=["in", "nothing", "."])
    message_of(task, capsys)
    open("more", "w").close()
    assert "done already" in message_of(task, capsys)


def test_words_for_which_an_input_stands(copy, capsys):
    def task(last):
        return copy(command=["bash", "-c", "cp in out", "x", "--lr", last], recorded=4)

    message_of(task("1"), capsys)
    assert "done already" in message_of(task("2"), capsys)


@pytest.fixture
def code(monkeypatch):
    """The code of every command, to be changed."""
    found = {"mambaasr/a.py": "1", "torch": "2.11.0"}
    monkeypatch.setattr(module, "code_of", lambda command, programs, configs: dict(found))
    return found


def test_other_code_means_again(copy, capsys, code):
    message_of(copy(), capsys)
    assert "done already" in message_of(copy(), capsys)
    code["mambaasr/a.py"] = "2"
    assert "copy: its code changed (mambaasr/a.py)" in message_of(copy(), capsys)
    code["torch"] = "2.12.3"
    code |= {f"mambaasr/{name}.py": "1" for name in "bcde"}
    said = "copy: torch 2.11.0, now 2.12.3; its code changed (mambaasr/b.py, mambaasr/c.py, "
    assert f"{said}mambaasr/d.py and 1 more)" in message_of(copy(), capsys)
    assert "done already" in message_of(copy(), capsys)


def of_the_version_before(path):
    """Make a record as version 0.1.0 wrote it: the launcher in it, no --config, no code."""
    made = json.loads(path.read_text())
    made["options"] = {"": [["python", "-m", "mambaasr.bin.asr_train"]], "--ngpu": [["0"]]} | {
        key: value for key, value in made["options"].items() if key not in ("", "--config")
    }
    del made["code"], made["corpora"]
    path.write_text(json.dumps(made))


def test_what_the_version_before_did(copy, capsys, code):
    """It is done again, for nobody knows by which code it was made; a training only tells it."""
    message_of(copy(), capsys)
    of_the_version_before(copy().marker)
    assert message_of(copy(), capsys).count("copy: nothing says by which code it was made\n") == 1
    task = trainer(copy, 1, title="train")
    assert run(task) == 9
    of_the_version_before(task.begun)
    said = message_of(task, capsys)
    assert "begun by another version: nothing says by which code it was made" in said
    of_the_version_before(task.marker)
    assert "stays as it is, though nothing says by which code" in message_of(task, capsys)
    assert message_of(task, capsys).count("\n") == 1
    with pytest.raises(UserError, match="--epochs: 1, now 2"):
        of_the_version_before(task.begun)
        run(trainer(copy, 2, title="train"))


def test_other_code_is_told_of_a_training_and_leaves_it(copy, capsys, code):
    assert run(trainer(copy, 1)) == 9
    capsys.readouterr()
    code["mambaasr/a.py"] = "2"
    said = message_of(trainer(copy, 1), capsys)
    assert "resumes from ckpt, begun by another version: its code changed (mambaasr/a.py)" in said
    assert message_of(trainer(copy, 1), capsys).count("\n") == 1
    code["torch"] = "3.0"
    said = message_of(trainer(copy, 1), capsys)
    assert "done already" in said
    assert "stays as it is, though torch 2.11.0, now 3.0; to train anew" in said
    assert message_of(trainer(copy, 1), capsys).count("\n") == 1  # told once


def test_outputs_mended_by_hand_outlive_other_code(copy, capsys, code):
    task = copy(keep_outputs=True)
    message_of(task, capsys)
    with open("out", "w") as stream:
        stream.write("mended\n")
    code["mambaasr/a.py"] = "2"
    said = message_of(task, capsys)
    assert (
        "stays as it is, for out changed by hand, though its code changed (mambaasr/a.py)" in said
    )
    assert "to make it anew all the same: --force true" in said
    assert message_of(task, capsys).count("\n") == 1
    with open("in", "w") as stream:
        stream.write("two\n")
    # Reported once more, with all that changed since it was made.
    said = message_of(task, capsys)
    assert "for out changed by hand, though in changed; its code changed (mambaasr/a.py);" in said
    assert Path("out").read_text() == "mended\n"
    other = copy(keep_outputs=True, command=["cp", "--backup=none", "in", "out"])
    with pytest.raises(UserError, match="(?s)--backup: .*out changed by hand.*--force true"):
        run(other)
    message_of(other, capsys, force=True)
    assert Path("out").read_text() == "two\n"
    code["mambaasr/a.py"] = "3"
    assert "copy: its code changed (mambaasr/a.py)" in message_of(other, capsys)


def test_without_its_mending_a_folder_is_what_it_was_made_of(copy, capsys):
    task = copy(keep_outputs=True)
    message_of(task, capsys)
    Path("out").write_text("mended\n")
    Path("in").write_text("two\n")
    assert "for out changed by hand" in message_of(task, capsys)
    Path("out").write_text("one\n")
    assert "copy: in changed" in message_of(task, capsys)
    assert Path("out").read_text() == "two\n"


def test_another_corpus_is_no_mending_by_hand(copy, capsys):
    """Its audio changed behind a data folder that nobody touched."""
    Path("corpus").mkdir()
    Path("corpus/a.wav").write_text("RIFF")
    Path("in").write_text("a corpus/a.wav\n")
    task = copy(command=["cp", "in", "wav.scp"], outputs=["wav.scp"], keep_outputs=True)
    task.corpora = ["corpus"]
    message_of(task, capsys)
    Path("corpus/a.wav").write_text("RIFF again")
    Path("corpus/text").write_text("a corrected\n")
    assert "copy: corpus changed" in message_of(task, capsys)


def test_a_failure_that_touched_nothing_leaves_kept_outputs_known(copy, capsys):
    message_of(copy(keep_outputs=True), capsys)
    failing = copy(keep_outputs=True, command=["cp", "--none", "in", "out"])
    assert run(failing) == 1
    with open("out", "w") as stream:
        stream.write("mended\n")
    capsys.readouterr()
    assert message_of(copy(keep_outputs=True), capsys).count("done already") == 1
    assert Path("out").read_text() == "mended\n"
    half = copy(keep_outputs=True, command=["bash", "-c", "echo half > out; exit 1"])
    assert run(half, force=True) == 1
    assert not half.marker.exists()


def test_the_number_of_devices_does_not_count(copy):
    train = ["-m", "mambaasr.bin.asr_train", "--lr", "1"]
    many = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    assert without_launcher(["python", *many, *train]) == train[1:]
    assert without_launcher(["python3", *train]) == train[1:]
    assert without_launcher(["cp", "-m", "x"]) == ["cp", "-m", "x"]
    assert without_launcher(["x", "-m"]) == ["x", "-m"]


def longer(copy, name, epochs, config="c.yaml", **more):
    """A training in a folder of its own; ``epochs`` None leaves them to the config."""
    line = f"mkdir -p exp/{name}/; touch exp/{name}/checkpoint.pth out"
    command = ["bash", "-c", line, "--output_dir", f"exp/{name}", "--config", config]
    command += ["--max_epoch", str(epochs)] if epochs else []
    given = {"title": "training", "stage": 11, "folder": f"exp/{name}", "command": command}
    return copy(**given | {"resumes": [f"exp/{name}/checkpoint.pth"]} | more)


def test_a_shorter_training_of_the_same_kind_is_named(copy, capsys):
    Path("c.yaml").write_text("max_epoch: 10\n")

    def told(*args, **more):
        said = message_of(longer(copy, *args, **more), capsys)
        return re.findall(
            r"(exp/\S+) is the same training but for (\d+) epochs instead of (\d+)", said
        )

    # The text of the command holds the folder's name, as that of a real one does.
    assert told("a", None) == []
    assert told("b", 20) == [("exp/a", "10", "20")]
    assert told("c", 15) == [("exp/a", "10", "15")]
    assert told("d", 30, variables={"x": "1"}) == []
    Path("in").write_text("two\n")
    assert told("e", 40) == []
    said = message_of(longer(copy, "f", 50), capsys)
    assert "add\n  --asr_exp exp/e --resume_changed true" in said
    assert told("f", 50) == []  # done already
    # What others left beside it is no reason to fail.
    of_the_version_before(Path("exp/a/.stages/11_training.json.begun"))
    Path("exp/b/.stages/11_training.json.begun").write_text("{torn")
    assert told("g", 60) == [("exp/f", "50", "60")]  # the longest


def test_variables_count(copy, capsys):
    message_of(copy(variables={"CORPUS": "/a"}), capsys)
    assert "done already" in message_of(copy(variables={"CORPUS": "/a"}), capsys)
    said = message_of(copy(variables={"CORPUS": "/b c"}), capsys)
    assert "CORPUS: /a, now '/b c'" in said


def test_command_that_cannot_begin_keeps_the_marker(copy, capsys):
    message_of(copy(), capsys)
    open("script", "w").close()
    for program, message in (("nowhere", "no such program"), ("./script", "is not executable")):
        with pytest.raises(UserError, match=f"{message}: {program}"):
            run(copy(command=[program]))
    with pytest.raises(UserError, match="cannot be written"):
        closed(copy().log)
        run(copy(command=["cp", "-f", "in", "out"]))
    opened(copy().log)
    assert "done already" in message_of(copy(), capsys)


def closed(path):
    """Put something in the way of a file."""
    path.unlink(missing_ok=True)
    path.mkdir()


def opened(path):
    path.rmdir()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_reported_with_the_path(copy, capsys, tmp_path):
    full, task = tmp_path / "full", copy()
    full.symlink_to("/dev/full")
    task.log.parent.mkdir()
    task.log.symlink_to("/dev/full")
    with pytest.raises(UserError, match="0_copy.log: cannot be written: No space left"):
        run(task)
    assert not os.path.exists("out")
    task.log.unlink()
    # The work is done and marked: what failed is the table of times.
    with pytest.raises(UserError, match="full: cannot be written: No space left"):
        run(task, timings=full)
    assert "done already" in message_of(task, capsys)
    other = copy(folder=tmp_path / "other")
    other.marker.parent.mkdir(parents=True)
    Path(f"{other.marker}.lock").symlink_to("/dev/full")
    with pytest.raises(UserError, match="json.lock: cannot be written"):
        run(other)


def test_failing_command_leaves_no_marker(copy, capsys):
    task = copy(command=["cp", "nowhere", "out"])
    assert run(task) == 1
    assert "failed with exit status 1" in capsys.readouterr().out
    assert not task.marker.exists()
    assert run(task) == 1


def test_a_killed_command_says_so(copy, capsys):
    assert run(copy(command=["bash", "-c", "kill -9 $$"])) == 137
    printed = capsys.readouterr().out
    assert "killed, perhaps because the memory was full, with exit status 137" in printed


def test_missing_output_is_an_error(copy):
    task = copy(command=["true"])
    with pytest.raises(UserError, match="ended without writing out"):
        run(task)
    assert not task.marker.exists()


def test_failed_redo_takes_the_old_marker_away(copy, capsys):
    message_of(copy(), capsys)
    assert run(copy(command=["false"])) == 1
    assert not copy().marker.exists()


def test_unreadable_marker_means_again(copy, capsys):
    message_of(copy(), capsys)
    copy().marker.write_text("{torn")
    assert "cannot be read" in message_of(copy(), capsys)


def test_missing_program(copy):
    with pytest.raises(UserError, match="no such program: nosuchprogram"):
        run(copy(command=["nosuchprogram"]))


def test_arguments_are_never_run(copy, capsys):
    argument = "$(touch pwned); touch pwned `touch pwned` '"
    message_of(copy(command=["cp", "in", argument], outputs=[argument]), capsys)
    assert sorted(os.listdir(".")) == sorted([argument, ".stages", "in", "log"])


def trainer(copy, epochs, **more):
    """A training in little: goes on from its checkpoint and fails the first time."""
    command = ["bash", "-c", "[ -e ckpt ] && touch out || { touch ckpt; exit 9; }", "--epochs"]
    return copy(command=[*command, str(epochs)], resumes=["ckpt"], **more)


def test_resume_after_a_kill(copy, capsys):
    assert run(trainer(copy, 1)) == 9
    capsys.readouterr()
    assert "begun and not finished" in message_of(trainer(copy, 1), capsys)
    assert "done already" in message_of(trainer(copy, 1), capsys)


def test_no_resume_from_foreign_checkpoint(copy, capsys):
    assert run(trainer(copy, 1)) == 9
    for _ in range(2):
        with pytest.raises(UserError, match="(?s)--epochs: 1, now 2.*--asr_tag"):
            run(trainer(copy, 2))
    assert not os.path.exists("out")
    assert message_of(trainer(copy, 2), capsys, resume_changed=True)
    with pytest.raises(UserError, match="--epochs: 2, now 3"):
        run(trainer(copy, 3))


def test_no_resume_from_checkpoint_of_unknown_origin(copy):
    open("ckpt", "w").close()
    with pytest.raises(UserError, match="nothing says how it was made"):
        run(trainer(copy, 1))


def test_log_keeps_the_last_of_a_progress_bar(copy, capsys, tmp_path):
    task = copy(command=["printf", "10%%\\r90%%\\nend"], outputs=[])
    assert run(task) == 0
    head, *lines = task.log.read_text().splitlines()
    assert head.endswith("printf '10%%\\r90%%\\nend'")
    assert lines == ["90%", "end"]


def test_what_a_command_leaves_running_disturbs_nothing(tmp_path):
    """Its output comes after the log is closed."""
    line = [*DRIVER, str(tmp_path), "", "bash", "-c", "(sleep 6; echo late; touch done) & echo hi"]
    done = subprocess.run(line, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    assert (tmp_path / "log/0_x.log").read_text().splitlines()[-1] == "hi"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_becomes_an_exit_unless_it_is_ignored(number):
    with pytest.raises(SystemExit) as stopped, exits_on_sigterm():
        signal.raise_signal(number)
    assert stopped.value.code == 128 + number
    before = signal.signal(number, signal.SIG_IGN)
    with exits_on_sigterm():
        signal.raise_signal(number)
    signal.signal(number, before)


def test_timings(copy, capsys, tmp_path):
    timings = tmp_path / "timings.tsv"
    message_of(copy(), capsys, timings=timings)
    message_of(copy(), capsys, timings=timings)
    head, *lines = [line.split("\t") for line in timings.read_text().splitlines()]
    assert head == ["task", "start", "end", "seconds", "cpu_seconds", "exit", "command"]
    assert [(line[0], line[5], line[6]) for line in lines] == [("stage 0: copy", "0", "cp in out")]


def test_timings_count_the_work_of_all_processes(copy, capsys, tmp_path):
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    child = ("sh", "-c", '"$0" -c "$1"; cp in out', sys.executable, burn)
    timings = tmp_path / "timings.tsv"
    message_of(copy(command=child), capsys, timings=timings)
    (row,) = csv.DictReader(timings.open(), delimiter="\t")
    assert float(row["cpu_seconds"]) >= 0.3


def test_options_sorts_words():
    found = options(["python", "-m", "x", "--a", "1", "-2", "--b=3", "--a", "4"])
    assert found == {"": [["python", "-m", "x"]], "--a": [["1", "-2"], ["4"]], "--b": [["3"]]}
    assert "--a" not in options(["x", "--a", "1"], ignore=["a"])


def test_changes_ignores_the_order_of_options():
    old, new = (
        {"options": options(line.split()), "inputs": {}} for line in ("--a 1 --b 2", "--b 2 --a 1")
    )
    assert changes(old, new) == []


def wait_for(path):
    for _ in range(200):
        if path.exists():
            return
        time.sleep(0.05)
    raise AssertionError(f"{path} did not appear")


def is_alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:
            return stream.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_command_ends_with_its_driver(tmp_path, how):
    """A driver that is killed leaves neither its command nor anything that looks finished."""
    pid = tmp_path / "pid"
    line = [*DRIVER, str(tmp_path), ""]
    line += ["bash", "-c", 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 60', str(pid)]
    driver = subprocess.Popen(line)
    wait_for(pid)
    command = int(pid.read_text())
    assert is_alive(command)
    driver.send_signal(how)
    driver.wait()
    for _ in range(100):
        if not is_alive(command):
            break
        time.sleep(0.1)
    assert not is_alive(command)
    assert not (tmp_path / ".stages/0_x.json").exists()


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="reads /proc")
def test_what_a_command_has_started_ends_too(tmp_path):
    """A corpus's data.sh waits for a program: neither outlives a driver that is stopped."""
    pid = tmp_path / "pid"
    script = 'echo $$ > "$0.new"; mv "$0.new" "$0"; sleep 60; touch "$0.late"'
    command = ["bash", "-c", f"bash -c {shlex.quote(script)} $0; true", str(pid)]
    driver = subprocess.Popen([*DRIVER, str(tmp_path), "", *command])
    wait_for(pid)
    driver.terminate()
    assert driver.wait() == 128 + signal.SIGTERM
    assert not is_alive(int(pid.read_text()))
    assert not Path(f"{pid}.late").exists()


def test_two_runs_take_turns(tmp_path):
    """The second waits until the first, which waits for a file, has done the work."""
    out = tmp_path / "out"
    wait = 'until [ -e "$0.ready" ]; do sleep 0.1; done; echo once >> "$0"'
    line = [*DRIVER, str(tmp_path), str(out), "bash", "-c", wait, str(out)]
    first = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert "not done yet" in first.stdout.readline()
    second = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    assert f"another run is at it (process {first.pid}); waiting" in second.stdout.readline()
    Path(f"{out}.ready").touch()
    assert first.wait() == 0 and second.wait() == 0
    assert "done already" in second.stdout.read()
    assert out.read_text() == "once\n"
    first.stdout.close()
    second.stdout.close()


def test_a_file_system_without_locks(copy, capsys, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    assert "this file system has no locks (No locks available)" in message_of(copy(), capsys)
    again = message_of(copy(), capsys)
    assert "done already" in again and "locks" not in again


def test_after_ctrl_c_a_command_ends_in_order(tmp_path):
    """The terminal sends it to the command too, which is not killed over its clearing up."""
    trap = 'trap "sleep 1; touch clean; exit 130" INT; touch begun; sleep 60 & wait'
    driver = subprocess.Popen(
        [*DRIVER, str(tmp_path), "", "bash", "-c", trap],
        cwd=tmp_path,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    while not (tmp_path / "begun").exists():
        time.sleep(0.05)
    os.killpg(driver.pid, signal.SIGINT)
    driver.wait()
    assert (tmp_path / "clean").exists()


def test_a_closed_terminal_stops_nothing(tmp_path):
    """As in ``run.sh | head -1``: the command is read to its end, and the log has all of it."""
    command = ["bash", "-c", "for i in $(seq 20000); do echo line $i; done; touch done"]
    driver = subprocess.Popen(
        [*DRIVER, str(tmp_path), "done", *command],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    driver.stdout.readline()
    driver.stdout.close()
    assert (driver.wait(), driver.stderr.read()) == (0, "")
    driver.stderr.close()
    assert (tmp_path / "log/0_x.log").read_text().splitlines()[-1] == "line 20000"
    assert (tmp_path / ".stages/0_x.json").exists()


def test_a_terminal_that_nobody_reads_stops_nothing(tmp_path):
    """As after Ctrl-S, or over a connection that is dead: the log comes first."""
    command = ["bash", "-c", "for i in $(seq 40000); do echo line $i; done; touch done"]
    screen, end = os.pipe()
    driver = subprocess.Popen(
        [*DRIVER, str(tmp_path), "done", *command], cwd=tmp_path, stdout=end, stderr=subprocess.PIPE
    )
    os.close(end)
    try:
        assert (driver.communicate(timeout=120)[1], driver.returncode) == (b"", 0)
    finally:
        driver.kill()
        os.close(screen)
    _, *lines = (tmp_path / "log/0_x.log").read_text().splitlines()
    assert lines == [f"line {i}" for i in range(1, 40001)]
    assert (tmp_path / ".stages/0_x.json").exists()


def test_a_terminal_that_is_read_again_says_what_it_missed(monkeypatch, capfd):
    read_again, write = threading.Event(), process._write
    monkeypatch.setattr(process, "SCREEN_SECONDS", 0.1)
    monkeypatch.setattr(process, "_write", lambda block: read_again.wait() and write(block))
    screen = process._Screen(size=4)
    for number in range(9):
        screen.show(b"%d\n" % number)
        while number == 0 and screen.blocks.qsize():
            time.sleep(0.01)
    screen.settle()
    read_again.set()
    while screen.blocks.qsize():
        time.sleep(0.01)
    screen.show(b"end\n")
    monkeypatch.undo()
    screen.settle()
    *shown, _, note, end = capfd.readouterr().out.splitlines()
    assert shown == list("01234"), "one in the thread's hand, four in the queue"
    assert "not shown" in note and end == "end"


def test_what_is_needed_and_what_is_generated(copy, capsys):
    task = copy(needs={"first": "no such thing: run stage 1"}, generated={"c/x.yaml": "a: 1\n"})
    task.inputs.append("c/x.yaml")
    with pytest.raises(UserError, match="first: no such thing: run stage 1"):
        run(task)
    open("first", "w").close()
    message_of(task, capsys)
    assert Path("c/x.yaml").read_text() == "a: 1\n" and would_run(task) == []
    task.generated["c/x.yaml"] = "a: 2\n"
    assert would_run(task) == ["c/x.yaml changed (a: 1, now 2)"]
    assert Path("c/x.yaml").read_text() == "a: 1\n"
    assert "c/x.yaml changed" in message_of(task, capsys)
    assert would_run(task, ["in", "other"]) == ["in may change"]


def test_a_refusal_leaves_the_config_as_it_was(copy, capsys):
    command = ["bash", "-c", "touch ckpt out"]
    task = copy(command=command, inputs=["c.yaml"], resumes=["ckpt"])
    for text in ("a: 1\n", "a: 2\n", "a: 1\n"):
        task.generated = {"c.yaml": text}
        if text == "a: 2\n":
            with pytest.raises(UserError, match=r"c.yaml changed \(a: 1, now 2\)"):
                run(task)
        else:
            message_of(task, capsys)
        assert Path("c.yaml").read_text() == "a: 1\n"


def test_a_config_in_the_form_of_before_is_the_same_training(copy, capsys):
    """Options of mixers stood beside ``mixer_conf``; experiments of then stay as they are."""
    before = "encoder_conf:\n  mixer: mamba2\n  d_state: 64\n  mixer_conf: {headdim: 32}\n"
    task = copy(inputs=["c.yaml"], generated={"c.yaml": before})
    message_of(task, capsys)
    now = "encoder_conf:\n  mixer_conf: {d_state: 64, headdim: 32, mixer: mamba2}\n"
    task.generated["c.yaml"] = now
    assert would_run(task) == [] and "done already" in message_of(task, capsys)
    assert Path("c.yaml").read_text() == before
    task.generated["c.yaml"] = now.replace("64", "32")
    assert "c.yaml changed" in message_of(task, capsys)


def test_generated_files_that_another_input_stands_for(copy, capsys):
    """As stage 10's config, for which its inputs.yaml stands."""
    line = ["bash", "-c", "cp in out", "x", "--config", "c.yaml"]
    task = copy(command=line, recorded=4, generated={"c.yaml": "a: 1\n"})
    message_of(task, capsys)
    task.generated["c.yaml"] = "a: 2\n"
    assert would_run(task) == [] and "done already" in message_of(task, capsys)


def test_a_driver_without_a_stdout_works(tmp_path):
    line = [*DRIVER, str(tmp_path), "", "echo", "hello"]
    done = subprocess.run(["bash", "-c", '"$@" >&-', "x", *line], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "log/0_x.log").read_text().endswith("hello\n")


def test_force_removes_what_a_command_would_resume_from(copy, capsys):
    task = copy(scratch=["chunks"])
    os.mkdir("chunks")
    message_of(task, capsys)
    assert os.path.isdir("chunks")
    message_of(task, capsys, force=True)
    assert not os.path.exists("chunks")


def test_a_task_without_a_folder_always_runs(copy, capfd):
    task = copy(folder=None, command=["echo", "hello"], outputs=[])
    for _ in range(2):
        assert run(task) == 0
    assert capfd.readouterr().out == "hello\nhello\n"
    assert os.listdir(".") == ["in"]


def test_marker_is_plain_json(copy, capsys):
    message_of(copy(), capsys)
    marker = json.loads(copy().marker.read_text())
    assert marker["inputs"] == {"in": fingerprint("in")}
    assert marker["outputs"] == {"out": fingerprint("out")}


def test_what_is_worth_another_try_is_not_done(copy, capsys):
    part = copy(command=["bash", "-c", "cp in out; exit 75"])
    assert run(part) == 75
    assert "the same run tries again what is missing" in capsys.readouterr().out
    assert run(part) == 75
    assert "not done yet" in capsys.readouterr().out
