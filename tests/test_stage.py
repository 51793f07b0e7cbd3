"""Steps of a recipe: skipped when done and still right, redone and resumed otherwise."""

import csv
import json
import os
import signal
import subprocess
import sys
import time

import pytest

from mambaasr.errors import UserError
from mambaasr.stage import Step, changes, fingerprint, options, run

STAGE = [sys.executable, "-m", "mambaasr.bin.stage"]


@pytest.fixture
def copy(tmp_path, monkeypatch):
    """A step that copies a file, in a folder whose name would hurt a careless shell."""
    folder = tmp_path / "a b,'c' $(touch pwned)"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "in").write_text("one\n")

    def make(**changed):
        given = {"name": "copy", "marker": folder / ".stages/copy.json", "inputs": ["in"]}
        given |= {"command": ["cp", "in", "out"], "outputs": ["out"]}
        return Step(**given | changed)

    return make


def message_of(step, capsys, **how):
    """Run a step and return what it said."""
    assert run(step, **how) == 0
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
    step = copy(command=["cp", "--backup=none", "in", "out"])
    assert "--backup: not given, now none" in message_of(step, capsys)


def test_optional_input_that_appears_counts(copy, capsys):
    step = copy(inputs=["in", "segments"])
    message_of(step, capsys)
    assert "done already" in message_of(step, capsys)
    open("segments", "w").close()
    assert "segments is new" in message_of(step, capsys)


def test_an_input_without_a_name_is_not_the_folder(copy, capsys):
    message_of(copy(inputs=["in", ""]), capsys)
    open("other", "w").close()
    assert "done already" in message_of(copy(inputs=["in", ""]), capsys)


def test_ignored_options_do_not_count(copy, capsys):
    def step(n):
        return copy(command=["env", f"--chdir={n}", "true"], outputs=[], ignore=["chdir"])

    message_of(step("."), capsys)
    assert "done already" in message_of(step("/"), capsys)


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
    step = copy(keep_outputs=True)
    message_of(step, capsys)
    with open("out", "w") as stream:
        stream.write("mended\n")
    assert "done already" in message_of(step, capsys)
    with open("out") as stream:
        assert stream.read() == "mended\n"
    os.unlink("out")
    assert "out is missing" in message_of(step, capsys)


def test_changed_audio_behind_a_wav_scp_is_noticed(copy, capsys):
    for name in ("a b.wav", "c.wav"):
        with open(name, "w") as stream:
            stream.write("RIFF")
        os.utime(name, (1, 1))
    with open("wav.scp", "w") as stream:
        stream.write("1 a b.wav\n2\tc.wav\n")
    step = copy(inputs=["wav.scp"])
    message_of(step, capsys)
    assert "done already" in message_of(step, capsys)
    for change in (
        lambda: os.utime("a b.wav", (2, 2)),
        lambda: open("a b.wav", "a").write("more"),
        lambda: os.unlink("c.wav"),
    ):
        change()
        said = message_of(step, capsys)
        assert "copy: the audio of wav.scp changed" in said and " wav.scp changed;" not in said
        assert "done already" in message_of(step, capsys)


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
        run(copy(command=["cp", "-f", "in", "out"], log="in/x.log"))
    assert "done already" in message_of(copy(), capsys)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_full_disk_is_told_with_the_path(copy, capsys, tmp_path):
    full = tmp_path / "full"
    full.symlink_to("/dev/full")
    with pytest.raises(UserError, match="full: cannot be written: No space left"):
        run(copy(log=full))
    assert not os.path.exists("out")
    # The work is done and marked: what failed is the table of times.
    with pytest.raises(UserError, match="full: cannot be written: No space left"):
        run(copy(timings=full))
    assert "done already" in message_of(copy(), capsys)
    step = copy(marker=tmp_path / "other.json")
    (tmp_path / "other.json.lock").symlink_to("/dev/full")
    with pytest.raises(UserError, match="other.json.lock: cannot be written"):
        run(step)


def test_failing_command_leaves_no_marker(copy, capsys):
    step = copy(command=["cp", "nowhere", "out"])
    assert run(step) == 1
    assert "failed with exit status 1" in capsys.readouterr().out
    assert not step.marker.exists()
    assert run(step) == 1


def test_missing_output_is_an_error(copy):
    step = copy(command=["true"])
    with pytest.raises(UserError, match="ended without writing out"):
        run(step)
    assert not step.marker.exists()


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
    assert sorted(os.listdir(".")) == sorted([argument, ".stages", "in"])


def trainer(copy, epochs):
    """A training in little: goes on from its checkpoint and fails the first time."""
    command = ["bash", "-c", "[ -e ckpt ] && touch out || { touch ckpt; exit 9; }", "--epochs"]
    return copy(command=[*command, str(epochs)], resumes=["ckpt"])


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
    step = copy(command=["printf", "10%%\\r90%%\\nend"], outputs=[], log=tmp_path / "l/x.log")
    assert run(step) == 0
    head, *lines = step.log.read_text().splitlines()
    assert head.endswith("printf '10%%\\r90%%\\nend'")
    assert lines == ["90%", "end"]


def test_timings(copy, capsys, tmp_path):
    step = copy(timings=tmp_path / "timings.tsv")
    message_of(step, capsys)
    message_of(step, capsys)
    head, *lines = [line.split("\t") for line in step.timings.read_text().splitlines()]
    assert head == ["step", "start", "end", "seconds", "cpu_seconds", "exit", "command"]
    assert [(line[0], line[5], line[6]) for line in lines] == [("copy", "0", "cp in out")]


def test_timings_count_the_work_of_all_processes(copy, capsys, tmp_path):
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    child = ("sh", "-c", '"$0" -c "$1"; cp in out', sys.executable, burn)
    step = copy(timings=tmp_path / "timings.tsv", command=child)
    message_of(step, capsys)
    (row,) = csv.DictReader(step.timings.open(), delimiter="\t")
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


def test_fingerprint_of_folder(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/file").write_text("a")
    before = fingerprint(tmp_path)
    (tmp_path / "deep/__pycache__").mkdir()
    assert fingerprint(tmp_path) == before
    (tmp_path / "deep/file").write_text("b")
    assert fingerprint(tmp_path) != before
    assert fingerprint(tmp_path / "nothing") is None


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
    """A shell that is killed leaves neither its command nor anything that looks finished."""
    pid = tmp_path / "pid"
    line = [*STAGE, "--name", "x", "--marker", str(tmp_path / "m.json"), "--"]
    line += ["bash", "-c", 'echo $$ > "$0.new"; mv "$0.new" "$0"; exec sleep 60', str(pid)]
    # "; true" keeps the shell from replacing itself by the command.
    shell = subprocess.Popen(["bash", "-c", '"$@"; true', "driver", *line])
    wait_for(pid)
    command = int(pid.read_text())
    assert is_alive(command)
    shell.send_signal(how)
    shell.wait()
    for _ in range(100):
        if not is_alive(command):
            break
        time.sleep(0.1)
    assert not is_alive(command)
    assert not (tmp_path / "m.json").exists()


def test_two_runs_take_turns(tmp_path):
    out = tmp_path / "out"
    line = [*STAGE, "--name", "x", "--marker", str(tmp_path / "m.json"), "--output", str(out)]
    line += ["--", "bash", "-c", 'sleep 1; echo once >> "$0"', str(out)]
    first = subprocess.Popen(line, stdout=subprocess.PIPE, text=True)
    wait_for(tmp_path / "m.json.lock")
    time.sleep(0.3)
    second = subprocess.run(line, capture_output=True, text=True)
    assert first.wait() == 0 and second.returncode == 0
    assert f"another run is at it (process {first.pid}); waiting" in second.stdout
    assert "done already" in second.stdout
    assert out.read_text() == "once\n"
    first.stdout.close()


def test_command_line(tmp_path):
    line = [*STAGE, "--name", "x", "--marker", str(tmp_path / "m.json")]
    bare = subprocess.run(line, capture_output=True, text=True)
    assert bare.returncode == 2 and bare.stderr.startswith("error: no command")
    done = subprocess.run([*line, "--", "bash", "-c", "exit 7"], capture_output=True, text=True)
    assert done.returncode == 7
    begun = time.time()
    assert subprocess.run([*STAGE, "--help"], capture_output=True).returncode == 0
    assert time.time() - begun < 2
    assert not (tmp_path / "m.json").exists()


def test_marker_is_plain_json(copy, capsys):
    message_of(copy(), capsys)
    marker = json.loads(copy().marker.read_text())
    assert marker["inputs"] == {"in": fingerprint("in")}
    assert marker["outputs"] == {"out": fingerprint("out")}
