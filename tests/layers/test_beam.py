"""States of hypotheses that go on, change places, end and are kept."""

import pytest
import torch

from mambaasr.layers import beam
from mambaasr.layers.beam import Origin, Row, gather


def origin(value=0.0, time=3):
    """Two mixers whose state has two parts; the first row's values tell where they are."""
    states = [(torch.full((1, 2), value + m), torch.full((1, 3), value + m + 0.5)) for m in (0, 10)]
    return Origin(states, [torch.full((1, time, 4), value)])


def go_on(rows, add=()):
    """Gather rows; add something else to each, in place; return the new rows."""
    batch = gather(rows)
    batch.length += 1
    for parts in batch.states():
        for part in parts:
            for row, value in enumerate(add):
                part[row] += value
    for each in set(batch.origins):
        each.keep(batch)
    return [Row(batch, row) for row in range(len(rows))]


def values(rows):
    return [float(row.batch.parts[0][1, row.row, 0]) for row in rows]


def test_rows_go_on_in_any_order_and_leave_the_old_ones_alone():
    first = go_on([origin().first()] * 3, [1, 2, 3])
    assert values(first) == [11, 12, 13]
    second = go_on([first[2], first[0], first[2], first[2]], [100, 200, 300, 400])
    assert values(second) == [113, 211, 313, 413]
    assert values(first) == [11, 12, 13]


def test_rows_of_several_batches_and_origins():
    a, b = origin(), origin(1000.0)
    assert len(gather([a.first()] * 3).memory[0]) == 1
    rows = go_on([a.first(), b.first()], [1, 2])
    mixed = gather([rows[1], a.first(), rows[0]])
    assert [float(x) for x in mixed.parts[0][1, :, 0]] == [1012, 10, 11]
    assert [float(x) for x in mixed.memory[0][:, 0, 0]] == [1000, 0, 0]
    assert mixed.mask is None
    # The same hypotheses again: what was put together serves on.
    assert gather(rows).memory is rows[0].batch.memory


def test_memory_of_utterances_of_different_lengths():
    a, b = origin(1.0, time=2), origin(2.0)
    batch = gather([a.first(), a.first(), b.first(), b.first()])
    assert batch.memory[0][:, :, 0].tolist() == [[1, 1, 0], [2, 2, 2]]
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    batch = gather([a.first(), b.first(), b.first()])
    assert batch.memory[0][:, :, 0].tolist() == [[1, 1, 0], [2, 2, 2], [2, 2, 2]]


@pytest.mark.parametrize("sizes", [(3, 3, 3, 3, 3), (3, 2, 3, 1, 3)])
def test_memory_of_a_batch_that_is_gone_serves_again(sizes):
    rows, seen = [origin().first()], []
    for size in sizes:
        rows = go_on([rows[0]] * size, range(size))
        seen.append(rows[0].batch.parts[0].data_ptr())
    assert len(set(seen)) < len(seen)


def test_what_is_kept_of_ended_hypotheses_does_not_grow(monkeypatch):
    rows = go_on([origin().first()] * 3)
    monkeypatch.setattr(beam, "KEPT_BYTES", 4 * rows[0].batch.bytes())
    ended = []
    for _ in range(9):
        ended.append(rows[0])
        rows = go_on(rows)
    assert [row.alive for row in ended] == [False] * 6 + [True] * 3


def test_large_states_keep_the_newest_two(monkeypatch):
    monkeypatch.setattr(beam, "KEPT_BYTES", 0)
    several = [go_on([origin().first()] * 2, [1, 2])]
    for _ in range(3):
        several.append(go_on(several[-1]))
    assert [rows[0].alive for rows in several] == [False, False, True, True]
    assert values(several[-2]) == values(several[-1]) == [11, 12]
