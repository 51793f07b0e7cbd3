"""Log-mel features whose frames do not depend on the batch."""

from typing import Annotated

import torch
import torch.nn.functional as F
import torchaudio
from torch import Tensor

from mambaasr.checks import check_choice
from mambaasr.errors import UserError
from mambaasr.espnet_compat import AbsFrontend
from mambaasr.ops.lengths import zero_padding

CONVENTIONS = ("kaldi", "whisper")
# Frames that are transformed at once; bounds the memory of a long recording.
BLOCK = 16384


class Fbank(AbsFrontend):
    """Log-mel filter banks by Kaldi's or Whisper's conventions, without dither.

    "kaldi" (compute-fbank-feats): samples scaled to 16 bits, frames that lie whole inside the
    utterance, DC offset removed, pre-emphasis 0.97, Povey window, power spectrum at the next
    power of two, mel from 20 Hz, natural logarithm.
    "whisper" (arXiv 2212.04356 and its code): frames centred at multiples of the hop, Hann
    window, Slaney mel, log10, at most 8 below the utterance's largest value, (x + 4) / 4. The
    utterance's start is reflected, its end is followed by zeros, as Whisper's padding to 30 s
    does; the padding of a batch is never seen.

    Args:
        fs: sampling rate in Hz, an integer or ESPnet's "16k".
        n_mels: mel bins.
        convention: "kaldi" or "whisper".
        win_length: samples of a window; by default 25 ms.
        hop_length: samples from frame to frame; by default 10 ms.

    Raises:
        ValueError: an option is unknown or not positive.
    """

    def __init__(
        self,
        fs: int | str = 16000,
        n_mels: int = 80,
        convention: Annotated[str, CONVENTIONS] = "kaldi",
        win_length: int | None = None,
        hop_length: int | None = None,
    ) -> None:
        super().__init__()
        fs = _hertz(fs)
        check_choice("fbank: convention", convention, CONVENTIONS)
        self.n_mels, self.convention = n_mels, convention
        self.win_length = win_length or fs * 25 // 1000
        self.hop_length = hop_length or fs // 100
        if min(n_mels, self.win_length, self.hop_length) <= 0:
            raise ValueError("fbank: n_mels, win_length and hop_length must be positive")
        if convention == "kaldi":
            self.n_fft = 1 << (self.win_length - 1).bit_length()
            window = torch.hann_window(self.win_length, periodic=False).pow(0.85)
            mel, _ = torchaudio.compliance.kaldi.get_mel_banks(
                n_mels, self.n_fft, fs, 20.0, 0.0, 100.0, -500.0, 1.0
            )
            mel = F.pad(mel, (0, 1)).T  # Kaldi leaves the Nyquist bin out
        else:
            self.n_fft = self.win_length
            window = torch.hann_window(self.win_length)
            mel = torchaudio.functional.melscale_fbanks(
                self.n_fft // 2 + 1, 0.0, fs / 2, n_mels, fs, norm="slaney", mel_scale="slaney"
            )
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("mel", mel.contiguous(), persistent=False)  # (n_fft / 2 + 1, n_mels)

    def output_size(self) -> int:
        """Number of mel bins."""
        return self.n_mels

    def output_lengths(self, lengths: Tensor) -> Tensor:
        """Samples (batch) -> frames (batch), by formula."""
        if self.convention == "whisper":
            # Reflection needs more samples than half a window.
            return torch.where(lengths > self.n_fft // 2, lengths // self.hop_length, 0)
        frames = torch.div(lengths - self.win_length, self.hop_length, rounding_mode="floor") + 1
        return frames.clamp(min=0)

    def forward(self, input: Tensor, input_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Compute features.

        Args:
            input: (batch, samples) in -1..1.
            input_lengths: (batch) valid samples.

        Returns:
            (batch, frames, n_mels) in the dtype of the input, zero beyond the lengths, and the
            lengths (batch).

        Raises:
            UserError: the audio has several channels.
        """
        if input.dim() != 2:
            raise UserError(
                f"fbank: input has shape {tuple(input.shape)}, expected (batch, samples): "
                "mix the channels down when the audio is formatted (stage 3)"
            )
        lengths = self.output_lengths(input_lengths)
        frames = int(lengths.max()) if len(lengths) else 0
        # Computed in fp32 whatever the model's type: 16-bit energies are too coarse.
        with torch.autocast(input.device.type, enabled=False):
            wave = zero_padding(input.float(), input_lengths)
            if frames == 0:
                return input.new_zeros(len(wave), 0, self.n_mels), lengths
            if self.convention == "whisper":
                half = self.n_fft // 2
                start = wave[:, 1 : half + 1].flip(1)
                needed = (frames - 1) * self.hop_length + self.n_fft
                wave = torch.cat([start, wave], dim=1)
                wave = F.pad(wave, (0, max(0, needed - wave.shape[1])))
            power = [
                self._log_mel(block)
                for block in wave.unfold(1, self.win_length, self.hop_length)[:, :frames].split(
                    BLOCK, dim=1
                )
            ]
            feats = torch.cat(power, dim=1)
            if self.convention == "whisper":
                floor = zero_padding(feats + 100.0, lengths).amax(dim=(1, 2), keepdim=True) - 108.0
                feats = (torch.maximum(feats, floor) + 4.0) / 4.0
            return zero_padding(feats, lengths).to(input.dtype), lengths

    def _log_mel(self, frames: Tensor) -> Tensor:
        """(batch, frames, win_length) -> (batch, frames, n_mels)."""
        if self.convention == "kaldi":
            frames = frames * 32768.0
            frames = frames - frames.mean(dim=-1, keepdim=True)
            previous = torch.cat([frames[..., :1], frames[..., :-1]], dim=-1)
            frames = frames - 0.97 * previous
        spectrum = torch.fft.rfft(frames * self.window.float(), n=self.n_fft)
        mel = (spectrum.real.square() + spectrum.imag.square()) @ self.mel.float()
        if self.convention == "kaldi":
            return mel.clamp(min=torch.finfo(torch.float32).eps).log()
        return mel.clamp(min=1e-10).log10()


def _hertz(fs: int | str) -> int:
    text = str(fs).strip().lower().removesuffix("hz")
    factor = 1
    if text.endswith("k"):
        text, factor = text[:-1], 1000
    try:
        hertz = round(float(text) * factor)
    except (ValueError, OverflowError):
        hertz = 0
    if hertz <= 0:
        raise ValueError(f"fbank: fs is {fs!r}; expected a rate in Hz such as 16000 or '16k'")
    return hertz
