"""A tiny ASR model with random weights, and real speech to decode."""

import yaml

TOKENS = ["<blank>", "<unk>", "<space>", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ", "<sos/eos>"]


# What makes of ESPnet's own classes ours.
OURS = dict(
    frontend="fbank",
    frontend_conf={},
    encoder="conmamba",
    encoder_conf=dict(output_size=16, num_blocks=1, linear_units=32),
    decoder="mamba",
    decoder_conf=dict(num_blocks=2, linear_units=32),
)

# What a tiny decoder of each name needs beside its defaults.
DECODERS = {
    "mamba": dict(num_blocks=2, linear_units=32),
    "speech_mamba": dict(num_blocks=2, d_state=16),
    "cross_mamba": dict(num_blocks=2, linear_units=32),
    "madeon": dict(num_blocks=2),
}


def make_experiment(folder, seed=0, **options):
    """Write config.yaml and model.pth of ESPnet's classes, or of others by ESPnet's options.

    Returns:
        The paths of both files.
    """
    import torch

    from mambaasr import register
    from mambaasr.espnet_compat import import_quietly

    register()
    task = import_quietly("espnet2.tasks.asr").ASRTask
    folder.mkdir(parents=True, exist_ok=True)
    args = task.get_parser().parse_args(["--output_dir", str(folder), "--token_type", "char"])
    args.token_list = TOKENS
    args.frontend_conf = {"n_mels": 20, "hop_length": 160}
    args.specaug = None
    args.normalize = "utterance_mvn"
    args.encoder = "conformer"
    args.encoder_conf = {"output_size": 16, "num_blocks": 1, "linear_units": 16}
    args.encoder_conf |= {"rel_pos_type": "latest", "pos_enc_layer_type": "rel_pos"}
    args.encoder_conf |= {"selfattention_layer_type": "rel_selfattn"}
    args.decoder = "transformer"
    args.decoder_conf = {"num_blocks": 1, "linear_units": 16}
    vars(args).update(options)
    torch.manual_seed(seed)
    model = task.build_model(args)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3)
    config, weights = folder / "config.yaml", folder / "model.pth"
    config.write_text(yaml.safe_dump(vars(args)), encoding="utf-8")
    torch.save(model.state_dict(), weights)
    return config, weights


def an4(test_data, count):
    """Return utterance -> path of some short test utterances."""
    files = sorted((test_data / "an4" / "wav" / "an4test_clstk" / "fcaw").glob("*.wav"))
    files = sorted(files, key=lambda path: path.stat().st_size)[:count]
    return {path.stem: str(path) for path in sorted(files)}
