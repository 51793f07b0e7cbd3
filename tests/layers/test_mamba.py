"""The Mamba-1 mixer: initialisation and names; what all mixers do is in test_mixer.py."""

import torch

from mambaasr.layers.mamba import Mamba


def test_initialisation_is_mamba_ssms():
    torch.manual_seed(0)
    mixer = Mamba(64, d_state=8)
    assert torch.allclose(mixer.A_log.exp(), torch.arange(1.0, 9.0).expand(128, -1))
    assert (mixer.D == 1).all()
    step = torch.nn.functional.softplus(mixer.dt_proj.bias)
    assert step.min() >= 1e-3 * 0.999 and step.max() <= 0.1 * 1.001
    assert step.log().std() > 1.0  # log-uniform over two decades: 1.33
    assert mixer.A_log._no_weight_decay and mixer.D._no_weight_decay


def test_parameter_names_and_shapes_are_mamba_ssms():
    shapes = {name: tuple(p.shape) for name, p in Mamba(64).state_dict().items()}
    assert shapes == {
        "A_log": (128, 16),
        "D": (128,),
        "in_proj.weight": (256, 64),
        "conv1d.weight": (128, 1, 4),
        "conv1d.bias": (128,),
        "x_proj.weight": (36, 128),
        "dt_proj.weight": (128, 4),
        "dt_proj.bias": (128,),
        "out_proj.weight": (64, 128),
    }


def test_noise_on_a_spares_its_sign():
    torch.manual_seed(0)
    plain = torch.arange(1.0, 17.0)
    noise = Mamba(512, A_init="noise").A_log.detach().exp() - plain
    assert abs(noise.mean()) < 0.01 and abs(noise.std() - 0.1) < 0.01
    assert (noise[0] - noise[1]).abs().max() > 0.01  # each channel's own
    # -max(1 + 3 N(0, 1), 0.01): a third of the first states would have the wrong sign.
    A = -Mamba(512, A_init="noise", A_noise=3.0).A_log.detach().exp()
    assert (A < 0).all() and torch.isclose(A, torch.tensor(-0.01)).sum() > 300
    mixer = Mamba(24, A_init="noise")
    before = mixer.A_log.detach().clone()
    torch.nn.init.zeros_(mixer.A_log)
    mixer.espnet_initialization_fn()
    assert not torch.equal(mixer.A_log, before)
    assert (mixer.A_log.exp() - plain).abs().max() > 0.01
