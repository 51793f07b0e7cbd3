from mambaasr.bin.ngram_train import main


def test_command(tmp_path, capsys):
    text, tokens, out = (
        tmp_path / "text $(touch EVIL)",
        tmp_path / "tokens.txt",
        tmp_path / "x.arpa",
    )
    text.write_text("a ONE TWO\nb TWO\n")
    tokens.write_text("<blank>\n<unk>\nONE\nTWO\n<sos/eos>\n")
    options = ["--text", str(text), "--token_list", str(tokens), "--out", str(out)]
    assert main([*options, "--token_type", "word", "--ngram_num", "2", "--estimator", "own"]) == 0
    assert capsys.readouterr().out.startswith(f"{out}: order 2, of 3 tokens (0 of them <unk>)")
    assert "ngram 2=4\n" in out.read_text()
