"""The command `mambaasr`: lists the commands, runs one of them."""

import os
import subprocess
import sys

import pytest

import mambaasr
from mambaasr.bin import main as main_module
from mambaasr.errors import UserError


def test_every_command_is_listed_with_a_line(capsys):
    assert main_module.main(["--help"]) == 0
    text = capsys.readouterr().out
    found = main_module.commands()
    assert "doctor" in found and "main" not in found
    for name, line in found.items():
        assert line, f"mambaasr/bin/{name}.py has no docstring"
        assert f"  {name}" in text and line in text


def test_version(capsys):
    assert main_module.main(["--version"]) == 0
    assert capsys.readouterr().out == f"mambaasr {mambaasr.__version__}\n"


def test_unknown_command_is_a_user_error():
    with pytest.raises(UserError, match="no command 'decode'"):
        main_module.main(["decode"])


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "mambaasr", *arguments], capture_output=True, text=True, check=False
    )


def test_a_command_gets_its_arguments_and_its_exit_code(tmp_path):
    missing = tmp_path / "missing"
    result = run("check-data", str(missing))
    assert result.returncode == 2
    assert result.stderr.startswith("error: ") and str(missing) in result.stderr
    assert "Traceback" not in result.stderr
    assert run("doctor", "--no_such_option").returncode == 2


@pytest.mark.parametrize("arguments", ["--help", "score --help", "score --ref a --hyp a"])
def test_a_reader_who_leaves_is_no_error(tmp_path, arguments):
    """As in ``mambaasr ... | head -1``, but that the reader has left for certain."""
    (tmp_path / "a").write_text("u1 ONE\n")
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "mambaasr", *arguments.split()]
    done = subprocess.run(line, cwd=tmp_path, stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode in (0, 141) and done.stderr == ""


@pytest.mark.parametrize(
    ("given", "policy"),
    [({}, "PASSIVE"), ({"OMP_WAIT_POLICY": "active"}, "active"), ({"GOMP_SPINCOUNT": "9"}, None)],
)
def test_threads_that_wait_sleep_unless_told_otherwise(given, policy):
    code = "import os; from mambaasr.command import run_main; "
    code += "run_main(lambda _: print(os.environ.get('OMP_WAIT_POLICY')))"
    variables = {name: os.environ[name] for name in os.environ if "OMP_" not in name} | given
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True)
    assert done.stdout.decode().split() == [str(policy)]
