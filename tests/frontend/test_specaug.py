"""SpecAugment with the utterance's mean: the masks of ESPnet's, another filling."""

import pytest
import torch

from mambaasr.registry import CLASSES, load

OPTIONS = dict(
    apply_time_warp=False, freq_mask_width_range=(2, 8), time_mask_width_ratio_range=(0.1, 0.2)
)


@pytest.fixture(
    params=[{}, {"apply_time_warp": True}, {"replace_with_zero": False}],
    ids=["masks", "warp and masks", "mean of the batch"],
)
def module(request):
    return load(CLASSES["specaug"]["mean_specaug"])(**OPTIONS | request.param)


def features(lengths=(50, 37)):
    x = torch.randn(len(lengths), max(lengths), 20, generator=torch.Generator().manual_seed(0))
    return 3 * x + 15, torch.tensor(lengths)


def test_what_masks_are_filled_with():
    from espnet2.asr.specaug.specaug import SpecAug

    x, lengths = features()
    torch.manual_seed(1)
    masked = SpecAug(**OPTIONS)(x.clone(), lengths)[0] == 0
    torch.manual_seed(1)
    y, _ = load(CLASSES["specaug"]["mean_specaug"])(**OPTIONS)(x, lengths)
    for row, length in enumerate(lengths):
        hidden, own = masked[row, :length], x[row, :length]
        assert 0 < hidden.sum() < hidden.numel()
        torch.testing.assert_close(y[row, :length][~hidden], own[~hidden])
        mean = own.mean(0).expand_as(own)
        torch.testing.assert_close(y[row, :length][hidden], mean[hidden])
        assert not y[row, length:].any()


def test_padding_never_matters(module):
    x, lengths = features()
    torch.manual_seed(2)
    y, _ = module(x.clone(), lengths)
    x[1, 37:] = torch.nan
    torch.manual_seed(2)
    z, out = module(x, lengths)
    torch.testing.assert_close(z, y, rtol=0, atol=0)
    assert z.shape == x.shape and out.tolist() == [50, 37]


def test_a_longer_neighbour_never_matters():
    module = load(CLASSES["specaug"]["mean_specaug"])(
        **OPTIONS | {"replace_with_zero": False, "apply_time_mask": False}
    )
    x, lengths = features()
    longer = torch.nn.functional.pad(x, (0, 0, 0, 400))
    longer[0, 50:] = 15.0
    outs = []
    for batch, own in ((x, lengths), (longer, torch.tensor([450, 37]))):
        torch.manual_seed(3)
        outs.append(module(batch, own)[0][1, :37])
    torch.testing.assert_close(*outs, atol=1e-4, rtol=0)


def test_a_gradient_passes(module):
    x, lengths = features()
    x.requires_grad_()
    module(x, lengths)[0].sum().backward()
    assert x.grad[1, :37].abs().sum() > 0 and not x.grad[1, 37:].any()


def test_an_experiment_with_it_opens(tmp_path):
    """Augmentation has no weights: its state is empty, whatever the options."""
    made = load(CLASSES["specaug"]["mean_specaug"])(**OPTIONS)
    torch.save(made.state_dict(), tmp_path / "state.pth")
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    assert not state and not made.load_state_dict(state).missing_keys
