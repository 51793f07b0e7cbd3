"""What our tasks share: safe checkpoints, and errors that name the option or the config."""

import argparse
import contextlib
import functools
import logging
import multiprocessing
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from mambaasr import espnet_compat
from mambaasr.beside import keep_beside, resolve
from mambaasr.config.read import Config
from mambaasr.data.splits import files_of
from mambaasr.errors import UserError
from mambaasr.task import checkpoints, optim
from mambaasr.task.build import reason
from mambaasr.task.log import write_log
from mambaasr.task.memory import keep_freed_memory
from mambaasr.task.trainer import Trainer, brief

_DATA = ("train_data_path_and_name_and_type", "valid_data_path_and_name_and_type")
_PATHS = ("output_dir", "bpemodel", "non_linguistic_symbols", "rir_scp", "noise_scp")
_PATH_LISTS = ("train_shape_file", "valid_shape_file")
_PATH_ENDINGS = ("_file", "_path", "_dir", "_scp")
# Kinds of data whose files hold the values themselves, not names of files or commands.
_NO_SCP = ("text", "random_text", "score", "duration", "hdf5")
# kaldiio runs `command |` and `| command`, also where an offset or a range stands behind.
_COMMAND = re.compile(r"\s*\||.*\|\s*(:[\s\d_+-]*)?(\[[^\[]*)?$", re.DOTALL)


class SafeTask:
    """Base of our tasks, before ESPnet's task among the bases.

    Options, config files and experiment folder stay ESPnet's own.
    """

    trainer = Trainer

    @classmethod
    def get_parser(cls) -> argparse.ArgumentParser:
        """Return ESPnet's parser; its errors are one line, and data paths may hold commas."""
        parser = super().get_parser()
        for action in parser._actions:
            if action.dest in _DATA:
                action.type = path_name_type
            elif isinstance(action, espnet_compat.NestedDictAction):
                action.__class__ = _ConfAction
        optim.add_options(parser)

        def error(message):
            task = cls.__name__.removesuffix("Task").lower()
            raise UserError(f"{message}; see mambaasr {task}_train --help_all")

        parser.error = error
        return parser

    @classmethod
    def main(cls, args: argparse.Namespace | None = None, cmd: Sequence[str] | None = None) -> None:
        """Run training or statistics in this process, or in one process a GPU as ESPnet does."""
        if args is None:
            args = cls.get_parser().parse_args(cmd)
        if args.print_config:
            cls.print_config()
            return
        missing = [name for name in args.required if getattr(args, name) is None]
        if missing:
            raise UserError(f"give {', '.join(f'--{name}' for name in missing)}; see --help")
        if args.config is not None:  # it may be that of a trained model
            resolve(vars(args), Path(args.config).parent)
        try:
            _check_files(args)
            _check_share(args)
            cls.prepare(args)
        except UserError:
            if int(os.environ.get("RANK", 0)):  # the first of several says it
                raise SystemExit(2) from None
            raise
        _make_absolute(args)
        # As in ESPnet's own main, which besides prints the command line to the screen.
        args.version = espnet_compat.espnet_version()
        espnet_compat.resolve_distributed_mode(args)
        if not (args.distributed and args.multiprocessing_distributed):
            cls.main_worker(args)
            return
        try:
            super().main(args=args)
        finally:
            for child in multiprocessing.active_children():
                child.terminate()

    @classmethod
    def prepare(cls, args: argparse.Namespace) -> None:
        """Check and complete the options of one task, before a model is built."""

    @classmethod
    def main_worker(cls, args: argparse.Namespace) -> None:
        """Train or collect statistics in this process, with its log in the output folder."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(write_log(args))
            stack.enter_context(checkpoints.guarded())
            stack.enter_context(espnet_compat.initial_weights_loaded_by(_load_checked))
            if args.collect_stats:
                preprocess = cls.build_preprocess_fn(args, train=False)
                stack.enter_context(_our_statistics(args, preprocess))
            else:
                stack.enter_context(espnet_compat.writing_config_by(keep_beside))
            stack.enter_context(_named_losses_of_workers(args))
            if not args.ngpu:
                keep_freed_memory()
            super().main_worker(args)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> torch.nn.Module:
        """Build the model; what a class refuses is reported with the config's name."""
        with _building(args, "model"):
            return super().build_model(args)

    @classmethod
    def build_optimizers(
        cls, args: argparse.Namespace, model: torch.nn.Module
    ) -> list[torch.optim.Optimizer]:
        """Build the optimizer; what a class refuses is reported with the config's name."""
        with _building(args, "optimizer"):
            optimizers = super().build_optimizers(args, model=model)
        with _building(args, "optimizer's schedule"):
            optim.prepare(args, optimizers)
        return optimizers


class _ConfAction(argparse.Action):
    """Put ``key=value``, ``key.sub=value`` or a mapping into a ``*_conf`` option.

    ESPnet's own action takes a mapping for Python code and lets yaml call functions.
    """

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        conf = Config("command line", {self.dest: getattr(namespace, self.dest, None)}).copy()
        conf.lay_over(self.dest, values)
        setattr(namespace, self.dest, conf[self.dest])


def path_name_type(text: str) -> tuple[str, ...]:
    """Split ``path,name,type`` at the last two commas, so that a path may hold commas."""
    parts = tuple(part.strip() for part in text.rsplit(",", 2))
    if len(parts) != 3 or not all(parts):
        raise UserError(f"{text}: write path,name,type, for example dump/raw/train/text,text,text")
    return parts


def _our_statistics(args, preprocess):
    """Let ESPnet's main_worker call our statistics; a normalisation made of them comes later."""
    from mambaasr.task import statistics

    if getattr(args, "normalize", None) == "global_mvn":
        args.normalize, args.normalize_conf = None, {}
    collect = functools.partial(statistics.collect_stats, args, preprocess)
    return espnet_compat.collecting_statistics_by(collect)


@contextlib.contextmanager
def _building(args, what):
    """Report what a class refuses in its constructor with the config's name."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        logging.info(f"the {what} cannot be built", exc_info=True)
        source = getattr(args, "config", None) or "command line"
        kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
        why = reason(error) if isinstance(error, AssertionError) else brief(error)
        raise UserError(f"{source}: the {what} cannot be built: {kind}{why}") from error


@contextlib.contextmanager
def _named_losses_of_workers(args):
    """Say what to do when a process that loads data is killed; torch only says that it was."""
    try:
        yield
    except RuntimeError as error:
        # torch raises the plain class; soundfile's has a text that may not be had (task/log.py).
        if type(error) is not RuntimeError or not str(error).startswith("DataLoader worker"):
            raise
        again = "the same command begins again"
        if not args.collect_stats:
            again = "the same command with --resume true resumes after the last whole epoch"
        raise UserError(
            f"a process that loads data was killed, perhaps for want of memory ({brief(error)}): "
            f"give more memory or a smaller --num_workers (now {args.num_workers}); {again}"
        ) from error


def _load_checked(theirs, init_param, model, **kwargs):
    """Load ``--init_param`` by ESPnet's own function; weights that do not fit are named."""
    try:
        # path:key in the file:key in the model:excluded, where the last three may be absent
        part = model.get_submodule((init_param.split(":") + ["", ""])[2].strip())
        loaded = []
        hook = part.register_load_state_dict_pre_hook(
            lambda part, state, prefix, *_: loaded.extend(_changed(part, state, prefix))
        )
        try:
            theirs(init_param=init_param, model=model, **kwargs)
        finally:
            hook.remove()
    except (RuntimeError, OSError, EOFError, AttributeError, ValueError) as error:
        raise UserError(f"--init_param {init_param}: {brief(error)}") from error
    left = sorted(part.state_dict().keys() - set(loaded))
    if not loaded:
        raise UserError(
            f"--init_param {init_param}: no weight of the model is in it; the model's are "
            f"{_shortened(left)}; write path:key in the file:key in the model"
        )
    if left:
        logging.warning(
            f"--init_param {init_param}: {len(left)} of {len(left) + len(loaded)} weights "
            f"are not in it and keep their initial values: {_shortened(left)}"
        )


def _changed(module, state, prefix):
    """List a module's weights that a state dict holds other tensors for than the module's own."""
    own = module.state_dict()
    return [
        name
        for name, tensor in own.items()
        if prefix + name in state and state[prefix + name].data_ptr() != tensor.data_ptr()
    ]


def _shortened(names, most=4):
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")


def _check_files(args):
    """Find missing devices, files and pipes before a model is built."""
    if args.ngpu > torch.cuda.device_count():
        raise UserError(
            f"--ngpu {args.ngpu}: torch sees {torch.cuda.device_count()} GPUs on "
            f"{platform.node()}; use --ngpu 0 for the CPU"
        )
    for name in _DATA:
        if not getattr(args, name) and not args.dry_run:
            raise UserError(f"give --{name} path,name,type")
        for path, _, kind in getattr(args, name):
            for file in files_of(path):
                _check_not_empty(file, name)
                if kind not in _NO_SCP:
                    _check_no_pipes(file)
    for name in _PATH_LISTS:
        for path in getattr(args, name):
            for file in files_of(path):
                _check_not_empty(file, name)
    for name in _PATHS[1:]:
        path = getattr(args, name, None)
        if path is not None and not os.path.exists(path):
            raise UserError(f"--{name} {path}: no such file")
    if isinstance(args.token_list, str):
        _check_not_empty(args.token_list, "token_list")
    for parameter in args.init_param:
        if not os.path.exists(parameter.partition(":")[0]):
            raise UserError(f"--init_param {parameter}: no such file")


def device_count(args: argparse.Namespace) -> int:
    """Return on how many devices a training runs, asked as ESPnet does, which does so later."""
    world = args.dist_world_size or os.environ.get("WORLD_SIZE")
    if world is None and args.dist_launcher == "slurm":
        world = os.environ.get("SLURM_NTASKS")
    return max(args.ngpu, int(world or 1))


def _check_share(args):
    """Refuse batches that have no utterance for some device."""
    devices = device_count(args)
    if devices == 1 or args.collect_stats:
        return
    if args.batch_type in ("unsorted", "sorted", "folded") and args.batch_size < devices:
        raise UserError(f"--batch_size {args.batch_size} is below the number of devices, {devices}")
    shapes = (*args.train_shape_file[:1], *args.valid_shape_file[:1])
    for path in (file for each in shapes for file in files_of(each)):
        with open(path, encoding="utf-8") as stream:
            count = sum(1 for _ in stream)
        if count < devices:
            raise UserError(f"{path}: {count} utterances are fewer than the devices, {devices}")


def _check_not_empty(path, option):
    try:
        if os.stat(path).st_size == 0:
            raise UserError(f"--{option} {path}: the file is empty")
    except FileNotFoundError:
        raise UserError(f"--{option} {path}: no such file; run the stage that makes it") from None


def _check_no_pipes(path):
    if _COMMAND.match(path):  # kaldiio takes the list's own name for a command as well
        raise UserError(f"{path}: a name that begins or ends with `|` is not opened; rename it")
    with open(path, encoding="utf-8", errors="replace") as stream:
        for number, line in enumerate(stream, 1):
            value = "".join(line.split(maxsplit=1)[1:])
            if _COMMAND.match(value.rstrip()):
                raise UserError(
                    f"{path}: line {number}: commands in a wav.scp are not run; "
                    f"write the audio to a file first (stage 3)"
                )


def _make_absolute(args):
    """Make paths mean the same from any folder; some are further changed by ``keep_beside``."""
    for name in _PATHS:
        if getattr(args, name, None) is not None:
            setattr(args, name, os.path.abspath(getattr(args, name)))
    for name in _PATH_LISTS:
        setattr(args, name, [os.path.abspath(path) for path in getattr(args, name)])
    for name in _DATA:
        data = [(os.path.abspath(path), *rest) for path, *rest in getattr(args, name)]
        setattr(args, name, data)
    args.init_param = [
        os.path.abspath(path) + colon + rest
        for path, colon, rest in (text.partition(":") for text in args.init_param)
    ]
    for name, conf in vars(args).items():
        if name.endswith("_conf") and isinstance(conf, dict):
            for key, value in conf.items():
                if isinstance(value, str) and key.endswith(_PATH_ENDINGS) and Path(value).exists():
                    conf[key] = os.path.abspath(value)
