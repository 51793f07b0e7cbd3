"""Weights of mamba_ssm and transformers run in our mixers, and ours in theirs."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mambaasr.layers.mamba import Mamba
from mambaasr.layers.mamba2 import Mamba2

ROOT = Path(__file__).resolve().parents[2]
OURS = {"1": Mamba, "2": Mamba2}
UNREACHABLE = "Request failed|Failed to fetch|[Cc]onnection|timed out|dns error|name resolution"
SIZE = dict(d_model=24, d_state=8)
SIZE2 = SIZE | dict(headdim=8)
HF = dict(hidden_size=24, state_size=8, expand=2)
HF2 = HF | dict(num_heads=6, head_dim=8, n_groups=1, chunk_size=8)
HF_PLAIN = dict(layer_norm_epsilon=1e-5, use_bias=False)

# case -> the peer's class and options, our options
CASES = {
    "mamba1": ("mamba_ssm.Mamba", SIZE, SIZE),
    "mamba1, step by step": ("mamba_ssm.Mamba", SIZE | dict(use_fast_path=False), SIZE),
    "mamba1, sizes": (
        "mamba_ssm.Mamba",
        *2 * [SIZE | dict(d_conv=3, expand=3, dt_rank=5, conv_bias=False)],
    ),
    "mamba2": ("mamba_ssm.Mamba2", SIZE2, SIZE2),
    "mamba2, norm first": (
        "mamba_ssm.Mamba2",
        *2 * [SIZE2 | dict(norm_before_gate=True, D_has_hdim=True, bias=True)],
    ),
    "mamba2, no norm, limited steps": (
        "mamba_ssm.Mamba2",
        *2 * [SIZE2 | dict(rmsnorm=False, dt_limit=(0.01, 0.05))],
    ),
    "mamba2, in chunks": (
        "mamba_ssm.Mamba2",
        # Groups here alone: the reference of the other path norms over all of them.
        SIZE2 | dict(use_mem_eff_path=False, chunk_size=8, ngroups=2),
        SIZE2 | dict(ngroups=2),
    ),
    "mamba2, in chunks, partly": (
        "mamba_ssm.Mamba2",
        SIZE2 | dict(use_mem_eff_path=False, chunk_size=8, d_ssm=32, rmsnorm=False),
        SIZE2 | dict(d_ssm=32, rmsnorm=False),
    ),
    "mamba1 of transformers": ("transformers.MambaMixer", HF | HF_PLAIN, SIZE),
    "mamba1 of transformers, sizes": (
        "transformers.MambaMixer",
        HF | dict(use_bias=True, use_conv_bias=False, conv_kernel=3, time_step_rank=5),
        SIZE | dict(bias=True, conv_bias=False, d_conv=3, dt_rank=5),
    ),
    "mamba2 of transformers": ("transformers.Mamba2Mixer", HF2 | HF_PLAIN, SIZE2),
    "mamba2 of transformers, groups": (
        "transformers.Mamba2Mixer",
        HF2 | dict(n_groups=3, use_bias=True, time_step_limit=(0.01, 0.05)),
        SIZE2 | dict(ngroups=3, bias=True, dt_limit=(0.01, 0.05)),
    ),
}


def ours(name):
    """Our mixer for a case, as if trained, and an input."""
    torch.manual_seed(1)
    peer, _, options = CASES[name]
    mixer = OURS["2" if "2" in peer else "1"](**options)
    with torch.no_grad():
        for parameter in mixer.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return mixer.eval(), torch.randn(3, 24, 24)


@pytest.fixture(scope="module")
def theirs(tmp_path_factory):
    """Install the peers where the bench has them, and let them answer to all cases."""
    sys.path.insert(0, str(ROOT / "tools"))
    try:
        from bench import peers
    finally:
        sys.path.remove(str(ROOT / "tools"))
    if missing := peers.install():
        if re.search(UNREACHABLE, missing[-1]):
            pytest.skip(f"no package registry in reach to take mamba_ssm from: {missing[-1]}")
        pytest.fail("\n".join(missing))
    folder = tmp_path_factory.mktemp("weights")
    asked = {}
    for name, (peer, options, _) in CASES.items():
        mixer, x = ours(name)
        asked[name] = dict(peer=peer, options=options, state=mixer.state_dict(), x=x)
    torch.save(asked, folder / "ours.pt")
    script = Path(__file__).with_name("peer_mixers.py")
    result = subprocess.run(
        [sys.executable, script, folder / "ours.pt", folder / "theirs.pt"],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    return torch.load(folder / "theirs.pt", weights_only=True)


def answer(theirs, name):
    found = theirs[name]
    if isinstance(found, str):
        pytest.fail(found)
    return found


@pytest.mark.parametrize("name", CASES)
def test_their_weights_in_ours(theirs, name):
    found, (mixer, x) = answer(theirs, name), ours(name)
    mixer.load_state_dict(found["state"])
    with torch.no_grad():
        y = mixer(x)
    assert found["y"].abs().max() > 0.1
    assert (y - found["y"]).abs().max() <= 1e-5


@pytest.mark.parametrize("name", CASES)
def test_our_weights_in_theirs(theirs, name):
    found, (mixer, x) = answer(theirs, name), ours(name)
    with torch.no_grad():
        y = mixer(x)
    assert y.abs().max() > 0.1
    assert (y - found["y_ours"]).abs().max() <= 1e-5
