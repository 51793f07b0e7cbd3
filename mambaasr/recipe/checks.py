"""What is looked at before the stages that take hours: devices, classes, data, length of training.

Each check that imports much runs in a process of its own, for what it imports or reads would lie in
memory all the while.
"""

import multiprocessing
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from mambaasr.errors import UserError
from mambaasr.recipe.options import Options

# Headers of so many recordings tell how long an utterance is in the mean.
_SAMPLE = 50
# So many seconds stand for a header without a length.
_UNKNOWN = 1e8


def apart(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process of its own; return or raise what it does."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as pool:
        return pool.submit(function, *arguments).result()


def check_devices(o: Options, trains: bool, decodes: bool) -> None:
    """Refuse more GPUs than there are.

    Args:
        o: checked options.
        trains, decodes: what will run.

    Raises:
        UserError: names the option.
    """
    wanted = {"--ngpu": int(o.ngpu) * trains, "--gpu_inference": int(o.gpu_inference and decodes)}
    if not any(wanted.values()):
        return
    code = "import torch; print(torch.cuda.device_count())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    count = done.stdout.strip()
    for option, wants in wanted.items():
        if count.isdigit() and int(count) < wants:
            on_cpu = "--ngpu 0 trains" if option == "--ngpu" else "--gpu_inference false decodes"
            given = o.ngpu if option == "--ngpu" else "true"
            raise UserError(f"{option} {given}: torch sees {count} GPUs here; {on_cpu} on the CPU")


@dataclass(frozen=True)
class Sets:
    """What the data folders hold.

    Attributes:
        problems: what is wrong in each that cannot be used.
        notes: what else there is to say.
        counts: utterances in each that can.
        utterances: of the training set.
        seconds: of it, about; None where no recording could be read.
    """

    problems: list[str]
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    utterances: int = 0
    seconds: float | None = None


def check_enough(counts: Mapping[str, int], o: Options) -> None:
    """Refuse fewer utterances than GPUs: each needs one in every batch.

    Args:
        counts: of training and validation set, by the name of each.
        o: checked options.

    Raises:
        UserError: names the set.
    """
    for name, count in counts.items():
        if count < int(o.ngpu):
            raise UserError(f"{name}: {count} utterances are fewer than --ngpu {o.ngpu}")


def look_at_sets(folders: list[str], train: str, scp: str = "wav.scp") -> Sets:
    """Read data folders as stages 2 and 3 will, but no audio.

    Args:
        folders: of all sets.
        train: that of the training set.
        scp: the file that lists what is read in each.
    """
    from mambaasr.data.folder import DataFolder

    problems, notes, counts, utterances, seconds = [], [], {}, 0, None
    for path in folders:
        try:
            folder = DataFolder.read(path, scp)
        except UserError as error:
            problems.append(str(error))
            continue
        counts[path] = len(folder.utterances)
        if wordless := [utt for utt, text in folder.text.items() if not text.split()]:
            notes.append(
                f"{path}/text: {len(wordless)} of {counts[path]} transcripts have no word (the "
                f"first: {wordless[0]}); right for silence and noise alone"
            )
        if path == train:
            utterances, seconds = counts[path], _seconds(folder)
    return Sets(problems, notes, counts, utterances, seconds)


def _seconds(folder):
    from mambaasr.data.audio import read_header

    if folder.has_features:
        return None
    utts = folder.utterances
    found = []
    for utt in utts[:: max(1, len(utts) // _SAMPLE)][:_SAMPLE]:
        path, start, end = folder.source(utt)
        try:
            duration = (read_header(path).duration if end is None else end) - start
        except UserError:  # stage 3 will report it
            continue
        if duration < _UNKNOWN:
            found.append(duration)
    return sum(found) / len(found) * len(utts) if found else None


def warm_up_problem(config: Mapping[str, Any], sets: Sets, o: Options) -> str | None:
    """Say that a warm-up is longer than the training, as far as can be known before stage 3.

    Args:
        config: of the training.
        sets: see :func:`look_at_sets`.
        o: checked options.

    The number of updates is an estimate: stage 11 counts them, and our own schedules refuse.
    """
    if config.get("scheduler") is None:
        return None
    warm_up = (config.get("scheduler_conf") or {}).get("warmup_steps")
    updates = estimate_updates(config, sets, o)
    if updates is None or not isinstance(warm_up, (int, float)) or warm_up <= updates:
        return None
    said = (
        f"warmup_steps {warm_up} of scheduler_conf may be longer than the training, which makes "
        f"about {updates} updates ({sets.utterances} utterances, max_epoch "
        f"{config.get('max_epoch', 40)})"
    )
    return f"{said}: the learning rate would not reach its peak"


def estimate_updates(config: Mapping[str, Any], sets: Sets, o: Options) -> int | None:
    """Return about how many updates a training makes; None where nothing tells."""

    def number(name: str, default: int) -> int:  # ESPnet's
        value = config.get(name)
        return default if value in (None, "none") else int(float(value))

    speeds = [float(word) for word in o.speed_perturb_factors.split()] or [1.0]
    batches = float(number("num_iters_per_epoch", 0))
    kind = str(config.get("batch_type", "folded"))
    if not batches and kind in ("numel", "length"):
        if sets.seconds is None:
            return None
        samples = sets.seconds * int(o.fs) * sum(1 / speed for speed in speeds)
        # Texts are counted beside the samples, and padding.
        batches = 2 * samples / number("batch_bins", 1_000_000)
    elif not batches and kind in ("unsorted", "sorted"):
        batches = sets.utterances * len(speeds) / number("batch_size", 20)
    elif not batches:  # one utterance a batch at worst
        batches = sets.utterances * len(speeds)
    return int((batches + 1) / number("accum_grad", 1) * number("max_epoch", 40))
