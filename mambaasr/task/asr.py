"""The ASR task: ESPnet's, with our names, safe checkpoints and errors that name the config.

Importing this module registers our names, so that the processes which ESPnet spawns for several
GPUs, and which import afresh, know them too.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch

from mambaasr import register
from mambaasr.config.criteria import drop_unreported
from mambaasr.data.ark import holds_matrix, read_matrix
from mambaasr.data.kaldi_file import parse_path, read_good_table
from mambaasr.data.splits import files_of
from mambaasr.errors import UserError
from mambaasr.espnet_compat import ASRTask as EspnetASRTask
from mambaasr.task import languages, sampling
from mambaasr.task.common import SafeTask, device_count
from mambaasr.task.error_rates import ErrorRates

register()


class ASRTask(SafeTask, EspnetASRTask):
    """ESPnet's ASR task; options, config files and experiment folder stay its own."""

    @classmethod
    def get_parser(cls) -> argparse.ArgumentParser:
        """Return the parser, with the options of what an epoch draws."""
        parser = super().get_parser()
        sampling.add_options(parser)
        return parser

    @classmethod
    def build_sequence_iter_factory(
        cls, args: argparse.Namespace, iter_options: Any, mode: str
    ) -> Any:
        """Return what gives batches: ESPnet's, or in training that of what is drawn."""
        if mode != "train" or not sampling.draws(args):
            return super().build_sequence_iter_factory(args, iter_options, mode)
        shard = slice(None)
        if iter_options.distributed:
            rank, size = torch.distributed.get_rank(), torch.distributed.get_world_size()
            shard = slice(rank, None, size)
        return sampling.iter_factory(
            args, iter_options, cls.build_dataset(args, iter_options), shard
        )

    @classmethod
    def prepare(cls, args: argparse.Namespace) -> None:
        """Check and name the languages of the training data; leave out what chooses no epoch."""
        drop_unreported(args)
        _find_width(args)
        _check_aggregation(args)
        _check_depth(args)
        sampling.check(args)
        if not args.dry_run:
            languages.prepare(args)

    @classmethod
    def build_model(cls, args: argparse.Namespace) -> torch.nn.Module:
        """Build the model, with error rates of its validation that know the token type."""
        frontend_conf = args.frontend_conf
        model = super().build_model(args)
        if args.input_size is not None:
            # ESPnet forgets it; it says how many frames a second has.
            args.frontend_conf = frontend_conf
        if getattr(model, "error_calculator", None) is not None:
            model.error_calculator = ErrorRates(
                model.token_list, args.token_type, {model.blank_id, model.eos}
            )
        transducer = getattr(model, "error_calculator_trans", None)
        if transducer is not None and args.token_type != "char":
            # It joins tokens as ESPnet's other one does.
            transducer.report_wer = False
        return model

    @classmethod
    def optional_data_names(cls, train: bool = True, inference: bool = False) -> tuple[str, ...]:
        """Return ESPnet's names of data that need not be there, and that of languages."""
        return (*super().optional_data_names(train, inference), languages.NAME)

    @classmethod
    def build_preprocess_fn(cls, args: argparse.Namespace, train: bool) -> Callable | None:
        """Return ESPnet's preprocessor; it turns a language into an index where there is one."""
        found = super().build_preprocess_fn(args, train)
        if args.model != languages.MODEL or not languages.needed(args.model_conf):
            return found
        return languages.LanguagePreprocessor(found, args.model_conf["languages"])


def _find_width(args):
    """Take the width of stored features for the model's ``input_size``.

    What an archive holds, audio or features, only its records say.
    """
    for path, name, kind in args.train_data_path_and_name_and_type:
        if name != "speech" or kind != "kaldi_ark":
            continue
        first = next(iter(read_good_table(files_of(path)[0], parse_path).values()))
        if not holds_matrix(first):
            continue
        width = read_matrix(first).shape[1]
        if args.input_size not in (None, width):
            raise UserError(f"--input_size {args.input_size}: {path} has features of {width} bins")
        args.input_size = width
    kinds = {kind for _, name, kind in args.train_data_path_and_name_and_type if name == "speech"}
    if args.input_size is not None and "sound" in kinds:
        raise UserError(
            f"--input_size {args.input_size}: the model reads features, and speech is audio; leave "
            "it out"
        )


def _check_depth(args):
    """Refuse stochastic depth on several devices that would wait for gradients of absent blocks."""
    rate = args.encoder_conf.get("stochastic_depth_rate")
    devices = device_count(args)
    drops = any(rate) if isinstance(rate, (list, tuple)) else rate
    if drops and devices > 1 and not args.unused_parameters:
        source = args.config or "command line"
        raise UserError(
            f"{source}: encoder_conf: stochastic_depth_rate is {rate} on {devices} devices, where "
            "a block that is left out gets no gradient; set unused_parameters: true"
        )


def _check_aggregation(args):
    """Refuse intermediate CTC before unimodal aggregation.

    ESPnet takes the lengths behind a post-encoder for those of the frames within the encoder, so
    that those losses would see the beginning of each utterance only.
    """
    weight = args.model_conf.get("interctc_weight", 0.0)
    if args.postencoder == "uma" and weight:
        source = args.config or "command line"
        raise UserError(
            f"{source}: model_conf: interctc_weight is {weight} with postencoder: uma, which "
            "shortens what the encoder gives; set it to 0.0"
        )
