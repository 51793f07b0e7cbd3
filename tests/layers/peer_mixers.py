"""Runs the mixers of mamba_ssm and transformers on weights and inputs that a test has saved.

Started by test_weights.py in a process of its own, as their modules must not stay in that of the
tests: ``python peer_mixers.py ours.pt theirs.pt``.

- ours.pt: case -> dict(peer=, options=, state= our state dict, x= input).
- theirs.pt: case -> dict(state= of a peer with weights of its own, y= its output for x, y_ours=
  its output for x with our weights), or the reason why the peer is missing.
"""

import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from bench import peers


def mamba1(source):
    """mamba_ssm.Mamba, its CUDA functions replaced by the reference ones beside them."""
    interface = source("mamba_ssm.ops.selective_scan_interface")
    interface.causal_conv1d_fn = source("causal_conv1d.causal_conv1d_interface").causal_conv1d_ref
    interface.selective_scan_fn = interface.selective_scan_ref
    module = source("mamba_ssm.modules.mamba_simple")
    module.causal_conv1d_fn = interface.causal_conv1d_fn
    module.selective_scan_fn = interface.selective_scan_ref
    module.mamba_inner_fn = interface.mamba_inner_ref
    return module.Mamba


def mamba2(source):
    """mamba_ssm.Mamba2 likewise; its two paths take two different reference scans."""
    mamba1(source)  # the second path goes through the scan of Mamba-1
    combined = source("mamba_ssm.ops.triton.ssd_combined")
    gated = source("mamba_ssm.ops.triton.layernorm_gated")
    combined.causal_conv1d_fn = source("causal_conv1d.causal_conv1d_interface").causal_conv1d_ref
    combined.rmsnorm_fn = gated.rmsnorm_fn = gated.rms_norm_ref
    module = source("mamba_ssm.modules.mamba2")
    module.causal_conv1d_fn = combined.causal_conv1d_fn
    module.mamba_split_conv1d_scan_combined = without(
        combined.mamba_split_conv1d_scan_ref, seq_idx=None
    )
    module.mamba_chunk_scan_combined = without(
        combined.ssd_chunk_scan_combined_ref,
        seq_idx=None,
        cu_seqlens=None,
        return_final_states=False,
        return_varlen_states=False,
    )
    return module.Mamba2


def without(function, **defaults):
    """``function`` for callers that name options which it does not know, at their defaults."""

    def call(*arguments, **options):
        for name, default in defaults.items():
            if options.pop(name, default) is not default:
                raise ValueError(f"{function.__name__} knows no {name}")
        return function(*arguments, **options)

    return call


def of_transformers(kind, options):
    """MambaMixer or Mamba2Mixer."""
    module = peers.load(f"transformers.models.{kind.lower()}.modeling_{kind.lower()}")
    config = getattr(module, f"{kind}Config")(num_hidden_layers=1, **options)
    return getattr(module, f"{kind}Mixer")(config, layer_idx=0)


def build(peer, options):
    """A mixer of a peer, whose modules can be found until ``close`` of the second value."""
    package, name = peer.split(".")
    if package == "transformers":
        return of_transformers(name.removesuffix("Mixer"), options)
    return {"Mamba": mamba1, "Mamba2": mamba2}[name](SOURCE)(**options)


@torch.no_grad()
def answer(case):
    """What a peer has to say to one case."""
    try:
        mixer = build(case["peer"], case["options"]).eval()
    except peers.Missing as error:
        return str(error)
    for parameter in mixer.parameters():  # as if trained: nothing is one, nothing is zero
        parameter.add_(0.2 * torch.randn_like(parameter))
    found = dict(state={k: v.clone() for k, v in mixer.state_dict().items()}, y=mixer(case["x"]))
    mixer.load_state_dict(case["state"])
    return found | dict(y_ours=mixer(case["x"]))


if __name__ == "__main__":
    torch.manual_seed(2)
    with peers.sources() as SOURCE:
        cases = torch.load(sys.argv[1], weights_only=True)
        theirs = {name: answer(case) for name, case in cases.items() if "_ssm" in case["peer"]}
    theirs |= {name: answer(case) for name, case in cases.items() if name not in theirs}
    torch.save(theirs, sys.argv[2])
