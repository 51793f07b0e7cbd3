"""``./run.sh | head -1``: the recipe goes on, or ends without a traceback."""

import os
import signal
import subprocess

from recipes import ASR, NEEDED, call, environment


def test_a_reader_who_leaves(recipe):
    options = [*NEEDED, "--stop_stage", "1"]
    reader, writer = os.pipe()
    os.close(reader)  # it has left for certain
    done = subprocess.run(
        [str(ASR), *options], cwd=recipe, env=environment(), stdout=writer, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    os.close(writer)
    assert done.returncode in (0, 141, -signal.SIGPIPE)
    assert "Traceback" not in done.stderr and "BrokenPipe" not in done.stderr
    finished = (recipe / "data/train/text").exists()
    assert finished or done.returncode
    assert call(recipe, *options).returncode == 0
