"""README.md stays short."""

from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_a_readme_that_grows_is_named(monkeypatch):
    """Ten minutes are enough to read it."""
    monkeypatch.syspath_prepend(str(ROOT / "ci"))
    from check_docs import check_readme

    assert list(check_readme((ROOT / "README.md").read_text(encoding="utf-8"))) == []
    assert "121 lines, at most 120" in next(check_readme("\n" * 121))
    assert list(check_readme("One. Two (2). Three, i.e. 3.5 of `x`.\n")) == []
    assert "4 sentences" in next(check_readme("One. Two! Three? Four.\n"))
    assert list(check_readme("| One. Two. Three. Four. |\n```sh\n# A. B. C. D.\n```\n")) == []
