from mambaasr.bin.make_tokens import main


def test_command(tmp_path, capsys):
    text, out = tmp_path / "text $(touch EVIL)", tmp_path / "it's, out"
    text.write_text("a ONE TWO\nb TWO <noise>\n")
    (tmp_path / "symbols").write_text("<noise>\n")
    assert main(["--text", str(text), "--token_type", "word", "--out", str(out)]) == 0
    expected = ["<blank>", "<unk>", "TWO", "<noise>", "ONE", "<sos/eos>"]
    assert (out / "tokens.txt").read_text().split() == expected
    args = ["--text", str(text), "--out", str(out), "--nlsyms_txt"]
    assert main([*args, str(tmp_path / "symbols"), "--token_type", "char"]) == 0
    assert "<noise>" in (out / "tokens.txt").read_text().split()
    assert main([*args, "none", "--token_type", "bpe", "--nbpe", "20", "--bpemode", "bpe"]) == 0
    assert len((out / "tokens.txt").read_text().split()) == 20
    assert "20 tokens (bpe)" in capsys.readouterr().out
