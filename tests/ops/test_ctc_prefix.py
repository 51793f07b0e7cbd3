"""Every backend of the CTC prefix scores against all paths, torch's CTC loss, ESPnet and each
other.
"""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from prefixes import close, doubled, extend, outputs, search

from mambaasr.ops import ctc_prefix
from mambaasr.ops.ctc_prefix import (
    IMPLEMENTATIONS,
    LOG_ZERO,
    Frames,
    Prefixes,
    advance,
    best,
    end,
    prepare,
    scores,
    start,
)
from mambaasr.ops.native import call

BACKENDS = [
    name for name, module in IMPLEMENTATIONS.items() if module.unavailable(torch.zeros(1)) is None
]
FAST = [name for name in BACKENDS if name != "naive"]


def collapse(path, blank):
    return [label for label, _ in itertools.groupby(path) if label != blank]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("blank", [0, 2])
@pytest.mark.parametrize("time", [1, 2, 5])
def test_sum_over_all_paths(backend, blank, time):
    x = outputs(1, time, 3, peaky=False)
    texts: dict = {}
    for path in itertools.product(range(3), repeat=time):
        p = math.exp(sum(x[0, t, c].item() for t, c in enumerate(path)))
        text = tuple(collapse(path, blank))
        texts[text] = texts.get(text, 0.0) + p
    frames = prepare(x, blank_id=blank)
    labels = [c for c in range(3) if c != blank]
    for n in range(time + 2):
        for prefix in itertools.product(labels, repeat=n):
            at = extend(frames, torch.tensor([prefix], dtype=torch.int64), backend)
            assert at.last.item() == (prefix[-1] if prefix else -1)
            got = scores(frames, at, backend=backend)[0, 0]
            for c in range(3):
                begins = sum(p for text, p in texts.items() if text[: n + 1] == (*prefix, c))
                want = math.log(begins) if begins and c != blank else LOG_ZERO
                assert got[c].item() == pytest.approx(want, abs=2e-5)
            whole = math.log(texts[prefix]) if prefix in texts else LOG_ZERO
            assert end(frames, at, backend=backend).item() == pytest.approx(whole, abs=2e-5)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("peaky", [False, True])
@pytest.mark.parametrize("candidates", [None, 0, 1, 5])
def test_fast_backends_match_the_truth(backend, peaky, candidates):
    lengths = torch.tensor([67, 1, 16, 0, 33, 5])
    x = outputs(6, 67, 7, peaky)
    x[4, 20:] = F.one_hot(torch.tensor(0), 7) * 30.0 - 30.0  # a tail of certain blanks
    frames = prepare(x, lengths)
    assert frames.log_probs.shape[2] % 16 == 0
    want, last = search(doubled(frames), "naive", 9, candidates=candidates)
    got, prefixes = search(frames, backend, 9, candidates=candidates)
    for one, other in zip(got, want, strict=True):
        close(one, other)
    assert torch.equal(prefixes.last, last.last)
    # Forward variables without what was taken off, which may differ.
    total = prefixes.forward.double() + prefixes.shift[..., None, None]
    wanted = last.forward + last.shift[..., None, None]
    alive = wanted > LOG_ZERO / 2
    assert torch.equal(total > LOG_ZERO / 2, alive)
    assert torch.allclose(total[alive], wanted[alive], rtol=1e-5, atol=1e-4)
    for row, length in zip(prefixes.forward, lengths.tolist(), strict=True):
        assert (row[..., length:] == LOG_ZERO).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_whole_texts_match_the_ctc_loss(backend):
    """Also those that are too long for the frames, and with labels that come twice."""
    lengths = torch.tensor([40, 31, 9, 3])
    labels = torch.tensor([[3, 3, 1, 4, 4, 4, 2, 1]] * 4)
    x = outputs(4, 40, 5)
    loss = F.ctc_loss(
        x.double().transpose(0, 1), labels, lengths, torch.full((4,), 8), reduction="none"
    )
    frames = prepare(x, lengths)
    got = end(frames, extend(frames, labels, backend), backend=backend)[:, 0]
    close(got, torch.where(loss.isinf(), LOG_ZERO, -loss))
    assert (got == LOG_ZERO).tolist() == [False, False, True, True]


@pytest.mark.parametrize("backend", FAST)
def test_an_hour_of_frames(backend):
    """60 labels over 90,000 frames. A frame may lose what float32 cannot add to 1: 3e-8."""
    time, count = 90_000, 60
    g = torch.Generator().manual_seed(0)
    labels = torch.randint(1, 4, (1, count), generator=g)
    x = 2 * torch.randn(1, time, 4, generator=g)
    x[..., 0] += 8.0  # all but certain to be blank
    x[0, ::200, 1] += 9.0  # now and then a label that the text does not have
    x[0, torch.arange(count) * (time // count) + 700, labels[0]] += 25.0
    x = x.log_softmax(2)
    frames = prepare(x)
    prefixes = extend(frames, labels[:, :-1], backend)
    got = scores(frames, prefixes, backend=backend)
    wide = Prefixes(prefixes.forward.double(), prefixes.shift, prefixes.last)
    want = scores(doubled(frames), wide)
    assert (got - want).abs().max() < 1e-4
    whole = end(frames, extend(frames, labels[:, -1:], backend, prefixes), backend=backend)
    loss = F.ctc_loss(x.double().transpose(0, 1), labels, [time], [count], reduction="sum")
    assert whole.item() == pytest.approx(-loss.item(), abs=1e-2)
    assert got[0, 0, labels[0, -1]] > whole.item()


def test_unlikely_candidates_are_exact():
    """A candidate whose only frame lies where the prefix is all but impossible."""
    x = torch.full((1, 40, 4), -200.0)
    x[0, :20, 1] = x[0, 20:, 0] = 0.0
    x[0, 30, 2] = -3.0
    x[0, 35, 3] = -10_000.0
    x[0, :35, 3] = x[0, 36:, 3] = -20_000.0
    frames = prepare(x)
    for labels in ([], [1], [2], [1, 2], [3, 1]):
        at = extend(frames, torch.tensor([labels], dtype=torch.int64), "naive")
        want = scores(frames, at, backend="naive")
        for backend in FAST:
            assert torch.allclose(scores(frames, at, backend=backend), want, rtol=1e-6, atol=2e-5)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("partial", [False, True])
def test_espnet_finds_the_same(backend, partial):
    espnet = pytest.importorskip("espnet2.legacy.nets.ctc_prefix_score")
    batch, beam, tokens, lengths = 3, 4, 8, torch.tensor([50, 23, 37])
    eos = tokens - 1
    x = outputs(batch, 50, tokens)
    theirs = espnet.CTCPrefixScoreTH(x.clone(), lengths.tolist(), 0, eos, 0)
    frames, state = prepare(x, lengths), None
    prefixes = start(frames).reorder(torch.zeros(batch, beam, dtype=torch.int64))
    texts = [[[eos] for _ in range(beam)] for _ in range(batch)]
    g = torch.Generator().manual_seed(0)
    for _ in range(8):
        chosen = torch.arange(tokens).expand(batch, beam, tokens)
        if partial:
            chosen = torch.rand(batch, beam, tokens - 2, generator=g).argsort(2) + 1
            chosen = chosen[..., :4]
        given = torch.cat([chosen, torch.full((batch, beam, 1), eos)], 2) if partial else None
        _, state = theirs(
            [text for row in texts for text in row],
            state,
            None if given is None else given.flatten(0, 1),
        )
        want = state[1].view(batch, beam, tokens).double().clamp(min=LOG_ZERO / 2)
        got = scores(frames, prefixes, chosen, backend=backend).clamp(min=LOG_ZERO / 2)
        inner = (chosen != eos) & (chosen != 0)
        assert torch.allclose(got[inner], want.gather(2, chosen)[inner], rtol=1e-5, atol=2e-4)
        whole = end(frames, prefixes, backend=backend).clamp(min=LOG_ZERO / 2)
        assert torch.allclose(whole, want[..., eos], rtol=1e-5, atol=2e-4)
        parents = torch.randint(beam, (batch, beam), generator=g)
        place = got.where(inner, LOG_ZERO)[torch.arange(batch)[:, None], parents].argmax(2)
        place[:, 1:] = torch.randint(1, chosen.shape[2] - 1, (batch, beam - 1), generator=g)
        of = torch.arange(batch)[:, None]
        labels = chosen[of, parents, place]
        state = theirs.index_select_state(state, parents * tokens + labels)
        texts = [
            [
                [*texts[u][i], c]
                for i, c in zip(parents[u].tolist(), labels[u].tolist(), strict=True)
            ]
            for u in range(batch)
        ]
        prefixes = advance(frames, prefixes, parents, labels, backend=backend)


@pytest.mark.parametrize("candidates", [None, 6])
def test_alone_as_in_any_batch(candidates, monkeypatch):
    """Bit for bit: in other company, at other lengths, on several threads."""
    lengths = torch.tensor([2100, 17, 0, 1030, 400])
    frames = prepare(outputs(5, 2100, 9), lengths)
    options = dict(steps=5, beam=7, candidates=candidates)
    _, prefixes = search(frames, "cpu", **options)
    chosen = None if candidates is None else torch.randint(9, (5, 7, candidates))
    whole = scores(frames, prefixes, chosen, backend="cpu"), end(frames, prefixes, backend="cpu")
    grown = advance(frames, prefixes, torch.arange(7).expand(5, 7), prefixes.last, backend="cpu")
    for subset in ([0], [1], [2], [3], [4, 1], [3, 0, 2]):
        index = torch.tensor(subset)
        few, rows = frames.select(index), prefixes.reorder(utterances=index)
        some = None if chosen is None else chosen[index]
        assert torch.equal(scores(few, rows, some, backend="cpu"), whole[0][index])
        assert torch.equal(end(few, rows, backend="cpu"), whole[1][index])
        parents = torch.tensor([[3, 6]] * len(subset))
        got = advance(few, rows, parents, rows.last.gather(1, parents), backend="cpu")
        want = grown.reorder(parents, index)
        assert torch.equal(got.forward, want.forward[..., : got.forward.shape[3]])
        assert torch.equal(got.shift, want.shift)
    if chosen is not None:
        every = scores(frames, prefixes, backend="cpu")
        assert torch.equal(every.gather(2, chosen), whole[0])
    monkeypatch.setattr(call, "SMALL", 0)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(scores(frames, prefixes, chosen, backend="cpu"), whole[0])
        again = advance(
            frames, prefixes, torch.arange(7).expand(5, 7), prefixes.last, backend="cpu"
        )
        assert torch.equal(again.forward, grown.forward)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("peaky", [False, True])
def test_best_of_all_tokens(backend, peaky):
    """The same scores, bit for bit, as of all; also where bounds are too small for float32."""
    lengths = torch.tensor([2060, 16, 0, 70])
    x = outputs(4, 2060, 60, peaky)
    x[:, :, 40:] -= 100.0
    x[1, :, 20:] -= 1000.0
    frames = prepare(x, lengths)
    prefixes = start(frames)
    for step in range(4):
        every = scores(frames, prefixes, backend=backend)
        for count in (0, 1, 7, 45, 60):
            values, tokens = best(frames, prefixes, count, backend=backend)
            assert torch.equal(values, every.topk(count, 2).values)
            assert torch.equal(every.gather(2, tokens), values)
            assert all(len(set(row)) == len(row) for row in tokens[0, :, :45].tolist())
        parents = torch.tensor([[0, 0, prefixes.last.shape[1] - 1]] * 4)
        labels = torch.tensor([[1, 59, 3], [5, 5, -1], [1, 2, 3], [7, 9 + step, 7]])
        prefixes = advance(frames, prefixes, parents, labels, backend=backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_utterances_leave_and_others_come(backend):
    x, lengths = outputs(4, 60, 6), torch.tensor([60, 20, 33, 8])
    old, new = prepare(x[:2], lengths[:2]), prepare(x[2:, :33], lengths[2:])
    labels = torch.tensor([[1, 2, 2], [3, 1, 4]])
    rows = extend(old, labels, backend)
    stay = torch.tensor([1])
    frames = Frames.join([old.select(stay), new])
    prefixes = Prefixes.join([rows.reorder(utterances=stay), start(new)])
    assert frames.log_probs.shape == (3, 6, 48) and frames.lengths.tolist() == [20, 33, 8]
    best(old, rows, 2, backend=backend)
    again = Frames.join([old.select(stay), new])
    for one, other in zip(
        best(again, prefixes, 3, backend=backend),
        best(frames, prefixes, 3, backend=backend),
        strict=True,
    ):
        assert torch.equal(one, other)
    got = scores(frames, prefixes, backend=backend)
    want = [scores(old, rows, backend=backend)[stay], scores(new, start(new), backend=backend)]
    assert torch.equal(got, torch.cat(want))
    wider = Prefixes.join([start(new), rows.reorder(torch.tensor([[0, 0], [0, 0]]))])
    found = scores(Frames.join([new, old]), wider, backend=backend)
    assert (found[:2, 1] == LOG_ZERO).all() and (found[:, 0, 1] > LOG_ZERO).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dead_prefix_stays_dead(backend):
    frames = prepare(outputs(1, 30, 5), torch.tensor([20]))
    parents = torch.tensor([[0, 0, 0]])
    prefixes = advance(frames, start(frames), parents, torch.tensor([[-1, 0, 2]]), backend=backend)
    for _ in range(3):
        found = scores(frames, prefixes, backend=backend)
        assert (found[0, :2] == LOG_ZERO).all() and (found[0, 2, 1:] > LOG_ZERO).all()
        assert (end(frames, prefixes, backend=backend)[0, :2] == LOG_ZERO).all()
        parents = torch.tensor([[1, 0, 2]])
        prefixes = advance(frames, prefixes, parents, torch.tensor([[3, 1, 1]]), backend=backend)
        assert (prefixes.forward[0, :2] == LOG_ZERO).all()


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_nan_stays_in_its_utterance(backend, value):
    good, lengths = outputs(3, 30, 5), torch.tensor([30, 25, 30])
    bad = good.clone()
    bad[1, 11, 3] = value
    bad[0, :], good[0, :] = (
        good[0].index_fill(0, torch.tensor([4]), v) for v in (-1e30, -math.inf)
    )
    bad[2, 3, 1] = good[2, 3, 1] = -math.inf
    results = []
    for x in (good, bad):
        frames = prepare(x, lengths)
        found, _ = search(frames, backend, 4)
        results.append(found)
    for want, got in zip(*results, strict=True):
        assert torch.equal(got[[0, 2]], want[[0, 2]]) and want.isfinite().all()
        values = got[1, ..., 1:] if got.dim() == 3 else got[1]
        assert values.isnan().all() or backend == "naive"
    values, tokens = best(frames, start(frames), 3, backend=backend)
    assert values[1].isnan().all() and values[[0, 2]].isfinite().all()
    assert tokens.min() >= 0 and tokens.max() < 5
    # Beyond the length there may be anything.
    clean = good.clone()
    good[1, 25:] = value
    assert all(
        torch.equal(a, b)
        for a, b in zip(
            *(search(prepare(x, lengths), backend, 2)[0] for x in (clean, good)), strict=True
        )
    )


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("empty", ["utterances", "hypotheses", "time"])
def test_nothing(backend, empty):
    x = outputs(2, 9, 5)
    frames = prepare(x[:0] if empty == "utterances" else x[:, :0] if empty == "time" else x)
    prefixes = start(frames)
    if empty == "hypotheses":
        prefixes = prefixes.reorder(torch.zeros(2, 0, dtype=torch.int64))
    u, k = prefixes.last.shape
    for _ in range(2):
        found = scores(frames, prefixes, backend=backend)
        assert found.shape == (u, k, 5) and (found == LOG_ZERO).all()
        whole = end(frames, prefixes, backend=backend)
        assert (
            whole.shape == (u, k) and (whole == torch.where(prefixes.last < 0, 0, LOG_ZERO)).all()
        )
        rows = torch.zeros(u, 0 if empty == "hypotheses" else 3, dtype=torch.int64)
        prefixes = advance(frames, prefixes, rows, rows + 1, backend=backend)
        u, k = prefixes.last.shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions(dtype):
    x = outputs(2, 9, 5)
    frames = prepare(x.to(dtype))
    wanted = torch.float64 if dtype == torch.float64 else torch.float32
    assert frames.log_probs.dtype == wanted
    want = scores(prepare(x), start(prepare(x)))
    assert torch.allclose(scores(frames, start(frames)), want, atol=0.3)
    if wanted == torch.float64:
        with pytest.raises(RuntimeError, match="'cpu' cannot run: it computes in float32"):
            scores(frames, start(frames), backend="cpu")


def test_bad_arguments_are_named():
    x, one = outputs(2, 9, 5), torch.tensor([[1], [1]])
    with pytest.raises(ValueError, match="log_probs has shape"):
        prepare(x[0])
    with pytest.raises(ValueError, match="blank_id is 5, log_probs has 5 tokens"):
        prepare(x, blank_id=5)
    with pytest.raises(ValueError, match="lengths reaches from 1 to 10"):
        prepare(x, torch.tensor([1, 10]))
    frames = prepare(x)
    at, zero = start(frames), torch.zeros_like(one)
    with pytest.raises(ValueError, match="candidates reaches from 0 to 5, expected 0 to 4"):
        scores(frames, at, torch.tensor([[[0, 5]], [[1, 1]]]))
    with pytest.raises(ValueError, match="candidates has shape"):
        scores(frames, at, one)
    with pytest.raises(ValueError, match="parents reaches from 0 to 1, expected 0 to 0"):
        advance(frames, at, torch.tensor([[0], [1]]), one)
    with pytest.raises(ValueError, match="tokens reaches from -2 to 1, expected -1 to 4"):
        advance(frames, at, zero, torch.tensor([[1], [-2]]))
    with pytest.raises(ValueError, match="tokens has shape"):
        advance(frames, at, zero, one.expand(2, 2))
    with pytest.raises(ValueError, match="prefixes of 2 utterances, frames of 1"):
        end(frames.select(torch.tensor([0])), at)
    with pytest.raises(ValueError, match="prefixes reach over 16 frames of 48"):
        scores(Frames.join([frames, prepare(outputs(2, 40, 5))]).select(torch.tensor([0, 2])), at)
    with pytest.raises(ValueError, match="count is 6, there are 5 tokens"):
        best(frames, at, 6)
    with pytest.raises(ValueError, match="differ"):
        Frames.join([frames, prepare(x, blank_id=1)])
    with pytest.raises(ValueError, match="backend is 'fast'"):
        ctc_prefix.scores(frames, at, backend="fast")
