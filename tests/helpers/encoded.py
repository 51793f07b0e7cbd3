"""Audio files that libsndfile cannot write, and headers that say something else."""

import av
import numpy as np


def encode(path, samples, rate, codec, muxer=None, **options):
    """Write float samples ``(time,)`` by FFmpeg; options are the encoder's, muxer's in a dict."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout="mono", options=options)
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(samples, "f4").reshape(1, -1), format="fltp", layout="mono"
        )
        frame.sample_rate = rate
        stream.codec_context.open()
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 1024
        )
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))


def flac_of_length(content, length):
    """Return a FLAC file's bytes with another number of samples in its header; 0 is unknown."""
    # "fLaC", four bytes of the block's head, ten of its sizes, then 28 bits and the length.
    head = int.from_bytes(content[18:26], "big") >> 36 << 36
    return content[:18] + (head | length).to_bytes(8, "big") + content[26:]
