"""Padded batches that must not leak, and sequences in pieces."""

import io

import torch


def poisoned(x, lengths, time=1):
    """Return a copy of a batch with NaN behind each length; ``time`` is the dimension of frames."""
    x = x.detach().clone()
    for row, length in zip(x.movedim(time, 1), lengths.tolist(), strict=True):
        row[length:] = float("nan")
    return x


def in_pieces(module, x, sizes):
    """Run a module over (b, t, e) in pieces; return the whole output and the last state."""
    state, pieces = module.initial_state(len(x)), []
    for piece in x.split(sizes, dim=1):
        y, state = module.forward_chunk(piece, state)
        pieces.append(y)
    return torch.cat(pieces, dim=1), state


def save_and_load(module, other):
    """Give a module's weights to another one through a file; its own are spoiled before."""
    stream = io.BytesIO()
    torch.save(module.state_dict(), stream)
    stream.seek(0)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.fill_(0.1)
    other.load_state_dict(torch.load(stream, weights_only=True))
    return other
