"""`make lint` passes, and its document check notices what is wrong."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_lint():
    bin_folder = Path(sys.executable).parent
    result = subprocess.run(
        [ROOT / "ci/lint.sh"],
        env={**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.fixture(scope="module")
def check_docs():
    spec = importlib.util.spec_from_file_location("check_docs", ROOT / "ci/check_docs.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check(check_docs, tmp_path, text):
    """Return what ci/check_docs.py says about a page with this text."""
    page = tmp_path / "page.md"
    page.write_text(text, encoding="utf-8")
    return "\n".join(check_docs.check_file(page))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("`make evn`", "no target 'evn'"),
        ("```sh\nmake env && make tset\n```", "no target 'tset'"),
        ("`mambaasr docter`", "there is no command mambaasr docter"),
        ("`mambaasr doctor --fast`", "no option --fast"),
        (
            "```sh\npython -m mambaasr.bin.no_such --x 1\n```",
            "there is no command mambaasr no_such",
        ),
        ("```sh\ncd nowhere\n./run.sh\n```", "no folder nowhere"),
        ("```sh\n./no_such.sh --stage 1\n```", "there is no ./no_such.sh"),
        ("```python\nimport mambaasr as\n```", "does not parse"),
        ("```sh\npython tools/no_such.py\n```", "there is no tools/no_such.py"),
        ("```yaml\na: [1\n```", "does not parse"),
        ("the option `--no_such_option 3`", "no command has an option --no_such_option"),
        ('`./run.sh --inference_args "--beam_sice 5"`', "asr_inference` has no option --beam_sice"),
        ("`mambaasr new_recipe --here`", "no option --here"),
        ("[here](missing.md)", "leads nowhere"),
        ("# A title\n[here](#a-titel)", "no such heading"),
    ],
)
def test_a_wrong_page_is_named(check_docs, tmp_path, text, complaint):
    assert complaint in check(check_docs, tmp_path, text)


def test_a_right_page_passes(check_docs, tmp_path):
    text = (
        "# It's *one*, two\n[self](page.md#its-one-two), [web](https://example.org#x)\n"
        '`mambaasr doctor`, `not a command`, `--asr_args` or `--fs 8k`, `--asr_args "--lr 1"`\n'
        "```sh\nmambaasr new_recipe mine\ncd egs/mine/asr1\n./run.sh --nj 1\n```\n"
        "```sh\ngit clone https://example.org/mambaasr && cd mambaasr\n"
        "make env TORCH=cpu  # a comment\nmambaasr doctor \\\n    --help\n```\n"
        "```python\nimport mambaasr\n```\n"
    )
    assert check(check_docs, tmp_path, text) == ""


def test_ci_runs_the_tests():
    lines = (ROOT / ".ci/run").read_text(encoding="utf-8").splitlines()
    assert lines[-2:] == ["make test", "make test_slow"]
    for target, marker in (("test", '"not slow"'), ("test_slow", "slow")):
        line = ["make", "-n", target]
        plan = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, check=True).stdout
        assert "tools/setup_env.sh" in plan and f"-m {marker}\n" in plan
