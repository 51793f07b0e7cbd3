"""Transcripts by the rules of their language."""

from pathlib import Path

import pytest

from mambaasr.data.text_rules import TextRules, read_rules, rules_of
from mambaasr.errors import UserError

TEMPLATE = Path(__file__).resolve().parents[2] / "egs/TEMPLATE/asr1/text_rules.yaml"


@pytest.mark.parametrize(
    ("language", "text", "wanted"),
    [
        ("en", "“Don’t stop” — it's 'fine', Mr. O'Neill!", "don't stop it's fine mr o'neill"),
        ("fr", "C’est l’été ; «\u00a0À Noël\u00a0», dit-il…", "c'est l'été à noël dit il"),
        ("de", "Große Straße, 25 Äpfel?", "große straße 25 äpfel"),
        ("cy", "Ydych chi'n darparu tŷ ŵyn?", "ydych chi'n darparu tŷ ŵyn"),
        ("tr", "ISPARTA'da İyi Iğdır", "ısparta'da iyi ığdır"),
        ("ru", "Ёлка — это «ель».", "ёлка это ель"),
        ("zh-CN", "中国 的，首都 is 北京。", "中国的首都is北京"),
        ("pl", "Zażółć gęślą jaźń", "zażółć gęślą jaźń"),
        ("es", "¿Qué? ¡Sí!", "qué sí"),
        ("it", "L’e\u0300 qui", "l'è qui"),  # composed
        ("hi", "नमस्ते, दुनिया!", "नमस्ते दुनिया"),  # vowel signs are marks
        ("cmn_hans_cn", "这 是 开始。", "这是开始"),  # FLEURS
        ("yue_hant_hk", "係 咁 開 始", "係咁開始"),
        ("zh-TW", "開始 了", "開始了"),
        ("ja_jp", "「始まり」 だ。", "始まりだ"),
        ("th_th", "มันเริ่ม อีก", "มันเริ่มอีก"),
        ("lo_la", "ເລີ່ມ\u200bຕົ້ນ ໃໝ່", "ເລີ່ມຕົ້ນໃໝ່"),
        ("km_kh", "ចាប់\u200bផ្តើម។", "ចាប់ផ្តើម"),
        ("my_mm", "စတင် ပြန်၊", "စတင်ပြန်"),
        ("ko_kr", "그렇게 시작했다.", "그렇게 시작했다"),
        ("tr_tr", "ISPARTA İyi", "ısparta iyi"),
        ("az_az", "Işıq, İdman", "ışıq idman"),
        ("ca_es", "Intel·ligent · l’ara", "intel·ligent l'ara"),
        ("he_il", "צה״ל, ב\u05be1948 ג׳ירפה", "צה״ל ב 1948 ג׳ירפה"),
        ("hy_am", "Ինչպե՞ս ես։", "ինչպես ես"),
        ("hy-AM", "Ինչպե՞ս", "ինչպես"),
        ("ar_eg", "الـسلام؛ \u200fعليكم؟", "السلام عليكم"),
        ("fa_ir", "می\u200cخواهم،", "می\u200cخواهم"),
        ("ur_pk", "ہے۔ کیا؟", "ہے کیا"),
        ("ml_in", "അവന്\u200d വന്നു.", "അവന്\u200d വന്നു"),
        ("am_et", "ሰላም፡ነው።", "ሰላም ነው"),
        ("uz_uz", "Oʻzbekiston, gʻalaba", "o'zbekiston g'alaba"),
        ("el_gr", "«Όλος», τι;", "όλος τι"),
        ("en", "co\u00adoperate\ufeff x\u200by", "cooperate x y"),  # soft hyphen, zero width
        ("xx", "...", ""),
        (None, "ÉTÉ", "été"),
    ],
)
def test_what_languages_write(language, text, wanted):
    rules = rules_of(read_rules(TEMPLATE), language)
    assert rules.apply(text) == wanted
    assert rules.apply(wanted) == wanted


def test_other_rules(tmp_path):
    assert TextRules("upper", "").apply("don't, straße") == "DON T STRASSE"
    assert TextRules("upper", dotless_i=True).apply("iyi ılık") == "İYİ ILIK"
    assert TextRules("as_is", "'-<>").apply("Well-known <noise>!") == "Well-known <noise>"
    (tmp_path / "rules.yaml").write_text("default: {case: upper, keep: '-'}\nde: {case: lower}\n")
    rules = read_rules(tmp_path / "rules.yaml")
    assert rules_of(rules, "de") == TextRules("lower", "-")
    assert rules_of(rules, "fr") == TextRules("upper", "-")
    assert rules_of(rules, "de_at") == rules_of(rules, "de-AT") == rules_of(rules, "de")
    assert rules_of(rules, "den") == TextRules("upper", "-")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lower\n", "rules.yaml: write languages and their options"),
        ("de: {\n", "rules.yaml: cannot be read as yaml"),
        ("de: lower\n", "rules.yaml: de: write options"),
        ("de: {case: title}\n", "rules.yaml: de: case is 'title'; choose one of lower, upper, as_"),
        ("de: {cases: lower}\n", "rules.yaml: de: .*'cases'.* there are: case, keep, drop, spaces"),
    ],
)
def test_wrong_rules(tmp_path, text, message):
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        read_rules(tmp_path / "rules.yaml")
