"""n-gram models: ARPA files, their scores, and modified Kneser-Ney against plain dictionaries."""

import math
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch

from mambaasr.errors import UserError
from mambaasr.lm import kneser_ney
from mambaasr.lm.arpa import read_arpa, write_arpa
from mambaasr.lm.kneser_ney import discounts, estimate
from mambaasr.lm.ngram import FLOOR, NGram, load

TOKENS = ["<blank>", "<unk>", "a", "b", "c", "d", "e", "<sos/eos>"]
V = len(TOKENS)
EOS = V - 1
# No suffix of "a b" but "b" is a context; "e" and "d" are unknown.
ARPA = r"""comments may stand here

\data\
ngram 1=6
ngram 2=5
ngram 3=2

\1-grams:
-99	<s>	-0.30
-1.00	</s>
-2.00	<unk>	-0.05
-0.50	a	-0.20
-0.60	b	-0.10
-0.70	c

\2-grams:
-0.25	<s> a	-0.15
-0.35	a b	-0.40
-0.45	b a
-0.90	b </s>
-0.80	<unk> a	-0.01

\3-grams:
-0.11	<s> a b
-0.22	a b a

\end\
"""


@pytest.fixture
def arpa(tmp_path):
    def write(text=ARPA):
        path = tmp_path / "x.arpa"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def texts(seed=0, count=60, longest=9):
    """Texts of tokens 1 ... V - 2, some much more frequent than others."""
    draw = random.Random(seed)
    tokens = range(1, V - 1)
    return [
        draw.choices(tokens, weights=[1, 9, 5, 3, 2, 1], k=draw.randint(1, longest))
        for _ in range(count)
    ]


def model_of(order, **more):
    return NGram(estimate(texts(**more), order, V), TOKENS)


def plain(path):
    """Read an ARPA file without any checks: {words: (log-probability, back-off)}, base 10."""
    grams, order = {}, 0
    for line in path.read_text().splitlines():
        if line.endswith("-grams:"):
            order = int(line[1])
        elif order and line and not line.startswith("\\"):
            fields = line.split()
            weight = float(fields[order + 1]) if len(fields) > order + 1 else 0.0
            grams[tuple(fields[1 : order + 1])] = float(fields[0]), weight
    return grams


def look_up(grams, history, word, longest):
    """Return the log-probability (base 10) by the definition of back-off."""
    history = history[max(0, len(history) - longest + 1) :]
    if (*history, word) in grams:
        return grams[*history, word][0]
    if not history:
        return grams[("<unk>",)][0]
    return grams.get(history, (0, 0))[1] + look_up(grams, history[1:], word, longest)


def names(history, grams):
    """Words of tokens as the model knows them; the first is <sos/eos>."""
    known = [TOKENS[t] if (TOKENS[t],) in grams else "<unk>" for t in history[1:]]
    return ("<s>", *known)


def expected(grams, history, longest):
    """Return the log-probabilities of all tokens after a history that begins with <sos/eos>."""
    words = [TOKENS[t] if (TOKENS[t],) in grams else "<unk>" for t in range(V - 1)] + ["</s>"]
    context = names(history, grams)
    return math.log(10) * torch.tensor([look_up(grams, context, w, longest) for w in words])


def walk(lm, histories):
    """Return the scores after histories of one length (r, time), read as one utterance's."""
    state = lm.reorder(lm.start(1), torch.zeros(1, len(histories), dtype=torch.long))
    for tokens in torch.tensor(histories).T:
        scores, state = lm.step(tokens[None], state)
    return scores[0]


def histories(length, count=40):
    draw = random.Random(length)
    return [[EOS, *draw.choices(range(V - 1), k=length)] for _ in range(count)]


def test_scores_of_a_file(arpa):
    """Explicit n-grams, back-off over one and two contexts, unknown tokens, by hand."""
    lm = load(arpa(), TOKENS)
    scores = walk(lm, [[EOS, 2], [EOS, 3]]) / math.log(10)
    # after <s> a: b is explicit; others by -0.15 - 0.20 and the unigram
    want = [-2.35, -2.35, -0.85, -0.11, -1.05, -2.35, -2.35, -1.35]
    assert torch.allclose(scores[0], torch.tensor(want), atol=1e-6)
    assert lm.output.log_probs(scores) is scores
    # <s> b is no bigram: after b alone
    want = [-2.1, -2.1, -0.45, -0.7, -0.8, -2.1, -2.1, -0.9]
    assert torch.allclose(scores[1], torch.tensor(want), atol=1e-6)
    # d is unknown, so <unk> a is there
    assert torch.allclose(walk(lm, [[EOS, 5]])[0, 2], torch.tensor(-0.8 * math.log(10)))


@pytest.mark.parametrize("length", range(6))
def test_step_equals_the_definition(arpa, length):
    path = arpa()
    lm, grams = load(path, TOKENS), plain(path)
    found = walk(lm, histories(length))
    for history, row in zip(histories(length), found, strict=True):
        assert torch.allclose(row, expected(grams, history, 3), atol=1e-5), history


@pytest.mark.parametrize("order", [1, 2, 4])
def test_written_and_read_again(tmp_path, order):
    """The same scores, which are those of the definition on the file's lines."""
    path = tmp_path / "x.arpa"
    orders = estimate(texts(), order, V)
    write_arpa(path, orders, TOKENS)
    lm, again, grams = NGram(orders, TOKENS), load(path, TOKENS), plain(path)
    assert max(map(len, grams)) == order
    for length in range(6):
        found = walk(again, histories(length))
        assert torch.allclose(found, walk(lm, histories(length)), atol=1e-5)
        for history, row in zip(histories(length), found, strict=True):
            assert torch.allclose(row, expected(grams, history, order), atol=1e-5)
    first = path.read_bytes()
    write_arpa(path, read_arpa(path, TOKENS), TOKENS)
    assert path.read_bytes() == first


def test_without_unk_and_with_pruned_suffixes(arpa):
    text = ARPA.replace("ngram 1=6", "ngram 1=5").replace("-2.00	<unk>	-0.05\n", "")
    text = text.replace("ngram 2=5", "ngram 2=3").replace("-0.80	<unk> a	-0.01\n", "")
    text = text.replace("-0.45	b a\n", "")
    lm = load(arpa(text), TOKENS)
    scores = walk(lm, [[EOS, 2, 3, 2], [EOS, 5, 5, 2]])
    assert torch.equal(scores[0], scores[1])  # of "b a" only "a" is a context
    assert scores[0, 1] == scores[0, 0] == scores[0, 5] == pytest.approx(FLOOR)
    assert walk(lm, [[EOS, 5]])[0, 3].item() == pytest.approx(-0.6 * math.log(10))


def test_a_text_that_begins_anew(arpa):
    """What stands before <sos/eos> is forgotten: ended hypotheses may be read on."""
    lm = load(arpa(), TOKENS)
    assert torch.equal(walk(lm, [[EOS, 2, 3, EOS, 2]]), walk(lm, [[EOS, 2]]))


def test_batch_equals_single():
    """An utterance's scores are the same, bit for bit, among any others."""
    lm = model_of(4)
    tokens = torch.tensor(histories(6, 12)).view(4, 3, 7)
    state = lm.reorder(lm.start(torch.zeros(4, 9, 2)), torch.zeros(4, 3, dtype=torch.long))
    alone = [lm.reorder(lm.start(1), torch.zeros(1, 1, dtype=torch.long)) for _ in range(12)]
    for time in range(7):
        scores, state = lm.step(tokens[:, :, time], state)
        assert scores.shape == (4, 3, V)
        for r in range(12):
            single, alone[r] = lm.step(tokens.view(12, 7)[None, r : r + 1, time], alone[r])
            assert torch.equal(scores.view(12, V)[r], single[0, 0])


def test_reorder_and_join():
    lm = model_of(3)
    state = lm.reorder(lm.start(2), torch.zeros(2, 2, dtype=torch.long))
    for tokens in ([[EOS, EOS]] * 2, [[2, 3], [4, 2]], [[3, 3], [2, 6]]):
        scores, state = lm.step(torch.tensor(tokens), state)
    before = state.clone()
    index, utterances = torch.tensor([[1, 0, 1]]), torch.tensor([1])
    some = lm.reorder(state, index, utterances, out=torch.zeros(1))
    assert torch.equal(some, state[1:, [1, 0, 1]]) and torch.equal(state, before)
    assert torch.equal(lm.reorder(state, utterances=utterances), state[1:])
    joined = lm.join([some, lm.reorder(state, index, torch.tensor([0]))])
    apart = [lm.step(torch.tensor([[2, 3, 4]]), joined[u : u + 1])[0] for u in range(2)]
    together, _ = lm.step(torch.tensor([[2, 3, 4]] * 2), joined)
    assert torch.equal(together, torch.cat(apart))
    with pytest.raises(ValueError, match=r"states of \[2, 3\] hypotheses"):
        lm.join([some, state])


@pytest.mark.parametrize("order", [1, 2, 4])
def test_espnets_interface(order):
    """It reads the last tokens anew, so that no state is needed."""
    lm = model_of(order)
    ys = torch.tensor(histories(5, 7))
    scores, states = lm.batch_score(ys, [None] * 7, None)
    assert torch.equal(scores, walk(lm, ys.tolist())) and states == [None] * 7
    assert torch.equal(lm.score(ys[3], None, None)[0], scores[3])
    assert lm.init_state(None) is None and lm.select_state(None, 0) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: "-1 a\n-2 b\n", "x.arpa:1: no ARPA file: it has no line"),
        (lambda t: t[: t.index("ngram 1")], "no line 'ngram 1=...'"),
        (lambda t: t[: t.index("-0.45")], "x.arpa: the file ends after 2 of 5 2-grams: it is torn"),
        (lambda t: t[: t.index("\\3-grams")], "expected \\3-grams:, but the file ends"),
        (lambda t: t[: t.index("\\end")], "expected \\end\\, but the file ends: it is torn"),
        (lambda t: t[: t.index("\ta b a")], "x.arpa:25: '-0.22' is no 3-gram"),
        (lambda t: t.replace("ngram 2=5", "ngram 2=4"), "x.arpa:21: expected \\3-grams:, found '"),
        (lambda t: t.replace("ngram 2=5", "ngram 2=6"), "x.arpa:23: '\\\\3-grams:' is no 2-g"),
        (lambda t: t.replace("ngram 2=5\n", ""), "x.arpa:5: ngram 3 where 2 was expected"),
        (lambda t: t.replace("-0.45	b", "O.45	b"), "x.arpa:19: 'O.45"),
        (lambda t: t.replace("-0.45	b", "0.45	b"), "x.arpa:19: '0.45"),
        (lambda t: t.replace("-0.45	b a", "-0.45	b a a -1"), "x.arpa:19: "),
        (lambda t: t.replace("b a\n", "a b\n"), "x.arpa:19: the n-gram stands twice"),
        (lambda t: t.replace("<s> a b", "a a b"), "x.arpa:24: an n-gram whose first"),
        (lambda t: t.replace("\ta", "\tANNA").replace("\tb", "\tB"), "57% of its prob"),
    ],
)  # fmt: skip
def test_files_that_are_none(arpa, change, message):
    with pytest.raises(UserError) as error:
        load(arpa(change(ARPA)), TOKENS)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_binary_and_missing_files(tmp_path):
    (tmp_path / "x.bin").write_bytes(b"mmap lm http://kheafield.com/code\x00\xff\xfe")
    with pytest.raises(UserError, match="x.bin:1: no text, so no ARPA file; of a binary model"):
        load(tmp_path / "x.bin", TOKENS)
    with pytest.raises(UserError, match="none.arpa: cannot be read: No such file"):
        load(tmp_path / "none.arpa", TOKENS)


def test_words_that_the_list_lacks_are_left_out(arpa):
    """A model of a larger vocabulary serves a smaller list."""
    text = ARPA.replace("ngram 1=6", "ngram 1=7").replace("\n\\2-", "-0.8	ANNA	-1\n\n\\2-")
    text = text.replace("ngram 2=5", "ngram 2=6").replace("\n\\3-", "-0.1	b ANNA\n\n\\3-")
    lm, plain_one = load(arpa(text), TOKENS), load(arpa(), TOKENS)
    for length in range(4):
        assert torch.equal(walk(lm, histories(length)), walk(plain_one, histories(length)))


def kneser_ney_by_dictionaries(sentences, longest, vocabulary):
    """Modified Kneser-Ney by its definition: a function (history, word) -> probability."""
    counts = [None] + [Counter() for _ in range(longest)]
    for words in (("<s>", *sentence, "</s>") for sentence in sentences):
        for n in range(1, longest + 1):
            for i in range(len(words) - n + 1):
                counts[n][words[i : i + n]] += 1
    del counts[1][("<s>",)]
    adjusted = [None] + [Counter() for _ in range(longest)]
    for n in range(1, longest + 1):
        for gram in counts[n]:
            if n == longest or gram[0] == "<s>":
                adjusted[n][gram] = counts[n][gram]
        if n < longest:
            for gram in counts[n + 1]:
                adjusted[n][gram[1:]] += 1
    taken, followers = [None], [defaultdict(dict) for _ in range(longest + 1)]
    for n in range(1, longest + 1):
        seen = Counter(adjusted[n].values())
        y = seen[1] / (seen[1] + 2 * seen[2]) if seen[1] else 0
        d = [0] + [i - (i + 1) * y * seen[i + 1] / seen[i] if seen[i] else -1 for i in (1, 2, 3)]
        taken.append(d if min(d) >= 0 else [0, 0.5, 1, 1.5])
        for gram, number in adjusted[n].items():
            followers[n][gram[:-1]][gram[-1]] = number

    def probability(history, word):
        history = history[max(0, len(history) - longest + 1) :]
        shorter = probability(history[1:], word) if history else 1 / len(vocabulary)
        n = len(history) + 1
        after = followers[n].get(history)
        if not after:
            return shorter
        left = sum(taken[n][min(number, 3)] for number in after.values())
        own = after.get(word, 0)
        return (own - taken[n][min(own, 3)] + left * shorter) / sum(after.values())

    return probability


@pytest.mark.parametrize("count", [3, 60, 600])  # too few for discounts, and enough
@pytest.mark.parametrize("order", [1, 2, 3, 5])
def test_estimate_equals_the_definition(order, count):
    sentences = texts(count=count)
    words = [tuple(TOKENS[t] for t in sentence) for sentence in sentences]
    probability = kneser_ney_by_dictionaries(words, order, [*TOKENS[1:-1], "</s>"])
    lm = NGram(estimate(sentences, order, V), TOKENS)
    for length in range(5):
        some = [[t if i == 0 else max(t, 1) for i, t in enumerate(h)] for h in histories(length, 9)]
        for history, scores in zip(some, walk(lm, some), strict=True):
            context = ("<s>", *(TOKENS[t] for t in history[1:]))
            want = [probability(context, word) for word in [*TOKENS[1:-1], "</s>"]]
            assert torch.allclose(scores[1:].exp(), torch.tensor(want), atol=1e-6), context


@pytest.mark.parametrize("order", [1, 2, 4])
def test_probabilities_sum_to_1(order):
    """Over the list without the blank, after every context, known or not."""
    lm = model_of(order)
    for length in range(6):
        sums = walk(lm, histories(length)).exp()[:, 1:].sum(1)
        assert torch.allclose(sums, torch.ones_like(sums), atol=1e-5)


def test_a_corpus_by_hand():
    """Two sentences, "a b" and "a c"; the fall-back discounts, as nothing occurs three times."""
    orders = estimate([[2, 3], [2, 4]], 2, V)
    unigrams = 10 ** orders[0].log_prob
    # a, b, c have one word before them, </s> two; 4 types: (1 - 0.5) / 5, (2 - 1) / 5; what is
    # left, (3 * 0.5 + 1) / 5, is shared by the 7 tokens that are not blank
    left = 0.5 / 7
    want = [0, left, 0.1 + left, 0.1 + left, 0.1 + left, left, left, 0.2 + left]
    assert np.allclose(unigrams, want)
    found = dict(zip(map(tuple, orders[1].words.tolist()), 10 ** orders[1].log_prob, strict=True))
    assert found.keys() == {(7, 2), (2, 3), (2, 4), (3, 7), (4, 7)}
    # after <s> twice a: (2 - 1) / 2 + 1 / 2 * p(a); after a once b: (1 - 0.5) / 2 + 1 / 2 * p(b)
    assert found[7, 2] == pytest.approx(0.5 + 0.5 * want[2])
    assert found[2, 3] == pytest.approx(0.25 + 0.5 * want[3])
    assert found[3, 7] == pytest.approx(0.5 + 0.5 * want[7])
    assert 10 ** orders[0].backoff[[1, 2, 3, 7]] == pytest.approx([1, 0.5, 0.5, 0.5])


def test_discounts():
    counts = np.repeat([1, 2, 3, 4, 9], [10, 5, 3, 2, 50])  # y = 10 / 20
    assert discounts(counts) == pytest.approx([0, 1 - 0.5, 2 - 1.5 * 3 / 5, 3 - 2 * 2 / 3])
    for few in ([1, 2, 4], [1, 1, 2, 3, 3, 3, 3, 3, 3]):  # no 3; more of 3 than of 2: below 0
        assert discounts(np.array(few)) == pytest.approx([0, 0.5, 1, 1.5])


def test_counts_in_pieces_are_the_same(monkeypatch):
    whole = kneser_ney.count(texts(), 3, V)
    monkeypatch.setattr(kneser_ney, "CHUNK", 20)
    for one, other in zip(whole, kneser_ney.count(texts(), 3, V), strict=True):
        assert np.array_equal(one, other)


def test_orders_longer_than_any_sentence_are_left_out():
    assert len(estimate([[2], [3, 2]], 9, V)) == 4  # <s> b a </s>
    assert len(estimate([[2]], 3, V)) == 3


@pytest.mark.parametrize(
    ("sentences", "order", "message"),
    [
        ([], 3, "no text to estimate"),
        ([[2]], 0, "of order 0: give 1 or more"),
        ([[2]], 21, "give a lower order, or install kenlm's lmplz"),
    ],
)
def test_what_cannot_be_estimated(sentences, order, message):
    with pytest.raises(UserError, match=message):
        estimate(sentences, order, V)
