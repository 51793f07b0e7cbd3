"""CTC outputs, and searches over them that every backend of the prefix scores must agree on."""

import torch

from mambaasr.ops.ctc_prefix import LOG_ZERO, Frames, advance, end, scores, start


def outputs(batch, time, tokens, peaky=True, seed=0):
    """Log-probabilities as a trained CTC has them, blanks and single frames of labels, or any."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, time, tokens, generator=g)
    if peaky:
        labels = torch.randint(tokens, (batch, time), generator=g)
        labels[torch.rand(batch, time, generator=g) < 0.7] = 0
        x.scatter_add_(2, labels[..., None], torch.full((batch, time, 1), 9.0))
    return (2 * x).log_softmax(2)


def doubled(frames):
    """The same frames in float64, which only the truth takes."""
    return Frames(frames.log_probs.double(), frames.base, frames.lengths, frames.blank_id)


def extend(frames, labels, backend=None, prefixes=None):
    """Append labels (u, n) to the only prefix of each utterance, one after the other."""
    prefixes = prefixes or start(frames)
    for label in labels.unbind(1):
        parents = torch.zeros(len(label), 1, dtype=torch.int64)
        prefixes = advance(frames, prefixes, parents, label[:, None], backend=backend)
    return prefixes


def close(got, want, tolerance=2e-5):
    """Equal to a tolerance, absolute on likely values and relative on unlikely ones."""
    assert got.shape == want.shape and got.dtype == want.dtype == torch.float64
    assert torch.equal(got == LOG_ZERO, want == LOG_ZERO)
    error = (got - want).abs() / (1 + want.abs() / 20)
    assert error.max().item() <= tolerance if error.numel() else True


def search(frames, backend, steps, beam=3, seed=0, candidates=None):
    """Random walks: what a search would ask for, step by step; the same for each backend."""
    g = torch.Generator().manual_seed(seed)
    batch, tokens = frames.log_probs.shape[:2]
    prefixes, found = start(frames), []
    for _ in range(steps):
        k = prefixes.last.shape[1]
        chosen = None
        if candidates is not None:
            chosen = torch.randint(tokens, (batch, k, candidates), generator=g)
        found.append(scores(frames, prefixes, chosen, backend=backend))
        found.append(end(frames, prefixes, backend=backend))
        parents = torch.randint(k, (batch, beam), generator=g)
        labels = torch.randint(-1, tokens, (batch, beam), generator=g)
        # Every third repeats its parent's last label.
        again = prefixes.last.gather(1, parents)[:, ::3]
        labels[:, ::3] = torch.where(again >= 0, again, labels[:, ::3])
        labels[:, 1] = labels[:, 1].clamp(min=1)
        prefixes = advance(frames, prefixes, parents, labels, backend=backend)
    return found, prefixes
