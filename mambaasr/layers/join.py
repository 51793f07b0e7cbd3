"""Speech and text of each utterance as one sequence, without padding between them."""

import torch
from torch import Tensor

from mambaasr.ops.lengths import reverse, take, zero_padding


def _order(speech_lengths, text_lengths, speech_time, text_time):
    """Where each frame of the joint sequences comes from in [speech; text]: (batch, time).

    A permutation: speech, text, then the padding of both. So every frame is read once, and the
    gradient of reading is writing each once.
    """
    place = torch.arange(speech_time + text_time, device=speech_lengths.device)
    spoken, written = speech_lengths[:, None], text_lengths[:, None]
    gap = speech_time - spoken
    shifted = torch.where(place < spoken, place, place + gap)  # text lies behind the speech
    rest = place - spoken - written  # padding frames, counted from 0: first the speech's
    padding = torch.where(rest < gap, spoken + rest, written + rest + spoken)
    return torch.where(rest < 0, shifted, padding)


def join(
    speech: Tensor, speech_lengths: Tensor, text: Tensor, text_lengths: Tensor
) -> tuple[Tensor, Tensor]:
    """Put each utterance's text right behind its own last frame of speech.

    One scan over the result serves both, on every backend: no state has to be handed over, and
    no padding lies between, which a recurrent model would read.

    Args:
        speech: (batch, time, width).
        speech_lengths: (batch).
        text: (batch, tokens, width).
        text_lengths: (batch).

    Returns:
        joint sequences (batch, time + tokens, width), zero beyond their lengths whatever the
        padding holds, and the lengths (batch).
    """
    order = _order(speech_lengths, text_lengths, speech.shape[1], text.shape[1])
    lengths = speech_lengths + text_lengths
    return zero_padding(take(torch.cat([speech, text], dim=1), order), lengths), lengths


def text_of(joint: Tensor, speech_lengths: Tensor, text_lengths: Tensor, tokens: int) -> Tensor:
    """Take the text out of joint sequences.

    Args:
        joint: (batch, time, width), of :func:`join` or of a layer over it.
        speech_lengths, text_lengths: (batch), as given to :func:`join`.
        tokens: how many to return, at least the longest text.

    Returns:
        (batch, tokens, width), zero beyond the text lengths.
    """
    place = torch.arange(tokens, device=joint.device) + speech_lengths[:, None]
    text = take(joint, place.clamp(max=joint.shape[1] - 1))
    return zero_padding(text, text_lengths)


def reverse_speech(joint: Tensor, speech_lengths: Tensor) -> Tensor:
    """Reverse the speech of joint sequences and leave the text; a second time undoes it.

    Args:
        joint: (batch, time, width), speech first.
        speech_lengths: (batch).

    Returns:
        the same shape.
    """
    return reverse(joint, speech_lengths)
