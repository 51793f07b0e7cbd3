import numpy as np
import soundfile

from mambaasr.bin.filter_data import main


def test_command(tmp_path, capsys):
    path, out = tmp_path / "data, 'x'", tmp_path / "out, $(touch EVIL)"
    path.mkdir()
    for name, samples in [("long", 32000), ("short", 800), ("right", 16000)]:
        soundfile.write(path / f"{name}.wav", np.zeros(samples), 16000)
    names = ("long", "right", "short")
    (path / "wav.scp").write_text("".join(f"{name} {path}/{name}.wav\n" for name in names))
    (path / "text").write_text("".join(f"{name} ONE\n" for name in names))
    (path / "utt2spk").write_text("".join(f"{name} speaker\n" for name in names))
    args = ["--min_wav_duration", "0.1", "--max_wav_duration", "1.5", str(path), str(out)]
    assert main(args) == 0
    assert "3 utterances in, 1 kept, 2 dropped" in capsys.readouterr().out
    assert (out / "wav.scp").read_text() == f"right {path}/right.wav\n"
    report = (out / "report.tsv").read_text()
    assert "long\t" in report and "too long" in report and "too short" in report
