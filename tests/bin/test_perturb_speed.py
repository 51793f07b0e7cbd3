import numpy as np
import soundfile

from mambaasr.bin.perturb_speed import main


def test_command(tmp_path, capsys):
    path, out = tmp_path / "data, 'x'", tmp_path / "out, $(touch EVIL)"
    path.mkdir()
    soundfile.write(path / "a.wav", 0.1 * np.ones(9000), 16000)
    (path / "wav.scp").write_text(f"utt {path}/a.wav\n")
    (path / "text").write_text("utt ONE\n")
    (path / "utt2spk").write_text("utt speaker\n")
    assert main(["--factors", "0.9 1.0", str(path), str(out)]) == 0
    assert "2 in, 2 kept, 0 dropped" in capsys.readouterr().out
    audio = dict(line.split(" ", 1) for line in (out / "wav.scp").read_text().splitlines())
    assert audio["utt"] == f"{path}/a.wav"
    assert soundfile.info(audio["sp0.9-utt"]).frames == 10000
    assert (out / "spk2utt").read_text() == "sp0.9-speaker sp0.9-utt\nspeaker utt\n"
