"""Options of a decoding, from a yaml and a command line."""

import pytest

from mambaasr.decode.inputs import read_prompts
from mambaasr.decode.options import check_decoding, parse
from mambaasr.errors import UserError


@pytest.mark.parametrize(
    ("config", "words", "message"),
    [
        ("beam_sise: 3\n", [], "yaml: line 1: .* `beam_sise`; did you mean `beam_size`"),
        ("beam_size: many\n", [], "decode.yaml: line 1: `beam_size` must be int, found 'many'"),
        ("{}\n", ["--beam_sise", "3"], "decoding: unrecognized arguments: --beam_sise 3"),
        ("{}\n", ["--help"], "decoding: .*--help"),
    ],
)
def test_mistakes_are_named(tmp_path, config, words, message):
    (tmp_path / "decode.yaml").write_text(config)
    with pytest.raises(UserError, match=message):
        check_decoding(tmp_path / "decode.yaml", words)


def test_a_language_model_that_is_not_used(tmp_path):
    (tmp_path / "decode.yaml").write_text("beam_size: 3\nlm_weight: 0.0\nctc_weight: 1e-1\n")
    check_decoding(tmp_path / "decode.yaml", ["--lm_weight", "0.3"], lm=True)
    check_decoding(None, [])
    with pytest.raises(UserError, match="decode.yaml: lm_weight is 0"):
        check_decoding(tmp_path / "decode.yaml", [], lm=True)


def test_the_command_line_goes_over_the_config(tmp_path):
    (tmp_path / "decode.yaml").write_text(
        "beam_size: 3\noutput_dir: y\nnormalize_length: true\nminlenratio: 0\nlog_level: debug\n"
    )
    words = ["--data_path_and_name_and_type=-", "--asr_model_file=-", "--config"]
    args = parse([*words, str(tmp_path / "decode.yaml"), "--output_dir", "x"])
    assert (args.beam_size, args.output_dir, args.log_level) == (3, "x", "DEBUG")
    assert args.normalize_length is True and isinstance(args.minlenratio, float)


def test_prompts_need_languages_only_where_they_name_them(tmp_path):
    keys, path = ["a", "b"], tmp_path / "utt2lang"
    assert read_prompts("", None, keys) is None
    assert read_prompts("<|transcribe|>", None, keys) == dict.fromkeys(keys, "<|transcribe|>")
    with pytest.raises(UserError, match="give --utt2lang FILE"):
        read_prompts("<|{lang}|>", None, keys)
    path.write_text("a en\nb de\n")
    assert read_prompts("<|{lang}|>", path, keys) == {"a": "<|en|>", "b": "<|de|>"}
    path.write_text("a en\n")
    with pytest.raises(UserError, match="'b' has no language"):
        read_prompts("<|{lang}|>", path, keys)


def test_batch_sizes():
    words = ["--data_path_and_name_and_type=-", "--asr_model_file=-", "--output_dir=-"]
    assert parse(words).batch_size == "auto"
    assert parse([*words, "--batch_size", "8"]).batch_size == 8
    with pytest.raises(SystemExit):
        parse([*words, "--batch_size", "0"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--search", "ctc_greedy", "--nbest", "2"], "no use for --nbest"),
        (["--search", "ctc_greedy", "--phrases", "x"], "no use for --phrases"),
        (["--espnet_search", "true", "--search", "rescore"], "it has no --search rescore"),
        (["--espnet_search", "true", "--batch_size", "4"], "no batches"),
        (["--ctc_window_margin", "100"], "give --espnet_search true too"),
        (["--ctc_weight", "2"], "from 0 to 1"),
        (["--maxlenratio=-0.5"], "a number of tokens"),
        (["--nbest", "30"], "needs a --beam_size of at least 30"),
    ],
)
def test_what_a_search_would_not_use_is_refused(words, message):
    with pytest.raises(UserError, match=message):
        check_decoding(None, words)


def test_an_ngram_model_that_is_not_used():
    with pytest.raises(UserError, match="ngram_weight is 0"):
        check_decoding(None, ["--ngram_weight", "0"], ngram=True)
