"""A tiny language model with random weights, of ESPnet's kind or ours."""

import yaml
from tiny_asr import TOKENS

OURS = dict(lm="mamba", lm_conf=dict(unit=16, num_blocks=2))
ESPNETS = dict(
    lm="transformer",
    lm_conf=dict(embed_unit=16, att_unit=16, head=2, unit=16, layer=1, pos_enc="sinusoidal"),
)


def make_lm_experiment(folder, seed=0, tokens=TOKENS, **options):
    """Write config.yaml and lm.pth of our class, or of another by ESPnet's options.

    Returns:
        The paths of both files.
    """
    import torch

    from mambaasr.task.lm import LMTask

    folder.mkdir(parents=True, exist_ok=True)
    args = LMTask.get_parser().parse_args(["--output_dir", str(folder), "--token_type", "char"])
    args.token_list = list(tokens)
    vars(args).update(OURS | options)
    torch.manual_seed(seed)
    model = LMTask.build_model(args)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1 and not getattr(parameter, "_no_weight_decay", False):
                parameter.mul_(3)
    config, weights = folder / "config.yaml", folder / "lm.pth"
    config.write_text(yaml.safe_dump(vars(args)), encoding="utf-8")
    torch.save(model.state_dict(), weights)
    return config, weights
