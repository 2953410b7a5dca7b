import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from lightning_sparse_rnn.data.batches import ColumnBatches
from lightning_sparse_rnn.data.lengths import SequenceLengths
from lightning_sparse_rnn.data.part_order import PartOrder

fixed = st.builds(SequenceLengths, st.integers(1, 12))
drawn = st.builds(
    SequenceLengths,
    st.integers(5, 12),
    st.just("drawn"),
    max_extra=st.none() | st.integers(0, 5),
    seed=st.integers(0, 99),
)
lengths = fixed | drawn
rows = st.integers(2, 90)
columns = st.integers(1, 4)
orders = st.none() | st.builds(PartOrder, st.integers(2, 5), st.integers(0, 99))


def columns_by_hand(ids: Tensor, count: int) -> list[list[int]]:
    size = len(ids) // count
    return [ids[column * size : (column + 1) * size].tolist() for column in range(count)]


@given(rows, columns, st.integers(0, 3), lengths, st.integers(0, 5))
def test_every_step_of_every_column_is_an_input_and_a_target_once(
    rows: int, columns: int, extra: int, lengths: SequenceLengths, epoch: int
) -> None:
    ids = torch.arange(rows * columns + min(extra, columns - 1))
    batches = list(ColumnBatches(ids, columns, lengths).epoch(epoch))
    by_hand = torch.tensor(columns_by_hand(ids, columns)).t()
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), by_hand[:-1])
    assert torch.equal(torch.cat([targets for _, targets in batches]), by_hand[1:])
    for (inputs, targets), length in zip(batches, lengths.epoch(epoch), strict=False):
        assert inputs.shape == targets.shape
        assert inputs.dtype == targets.dtype == torch.int64
        assert len(inputs) == length or (inputs is batches[-1][0] and 0 < len(inputs) <= length)


@given(st.integers(5, 90), columns, st.integers(1, 4), lengths, orders, st.integers(0, 3))
def test_ranks_together_see_what_one_process_sees(
    rows: int, columns: int, ranks: int, lengths: SequenceLengths, order: PartOrder | None, epoch: int
) -> None:
    ids = torch.arange(rows * columns * ranks + 1)
    alone = list(ColumnBatches(ids, columns * ranks, lengths, order=order).epoch(epoch))
    each = [ColumnBatches(ids, columns, lengths, rank=rank, world_size=ranks, order=order) for rank in range(ranks)]
    together = list(zip(*(batches.epoch(epoch) for batches in each), strict=True))
    assert len(together) == len(alone)
    for parts, whole in zip(together, alone, strict=True):
        for index in range(2):
            assert torch.equal(torch.cat([part[index] for part in parts], dim=1), whole[index])


@given(rows, columns, fixed)
def test_len_is_the_number_of_batches(rows: int, columns: int, lengths: SequenceLengths) -> None:
    batches = ColumnBatches(torch.arange(rows * columns), columns, lengths)
    assert len(batches) == sum(1 for _ in batches)


def test_drawn_lengths_have_no_len() -> None:
    batches = ColumnBatches(torch.arange(100), 2, SequenceLengths(5, "drawn"))
    with pytest.raises(TypeError, match="differs from epoch to epoch"):
        len(batches)
    assert len({len(list(batches.epoch(index))) for index in range(20)}) > 1


@given(rows, columns, st.integers(0, 3), lengths, st.integers(2, 9), st.integers(0, 99), st.integers(0, 5))
def test_parts_in_another_order_are_read_like_a_text_that_stands_so(
    rows: int, columns: int, extra: int, lengths: SequenceLengths, parts: int, seed: int, epoch: int
) -> None:
    ids = torch.arange(max(rows, parts) * columns + min(extra, columns - 1))
    order = PartOrder(parts, seed)
    text = order.read(ids, epoch)
    expected = ColumnBatches(text, columns, lengths).epoch(epoch)
    for got, want in zip(ColumnBatches(ids, columns, lengths, order=order).epoch(epoch), expected, strict=True):
        assert torch.equal(got[0], want[0])
        assert torch.equal(got[1], want[1])
    assert torch.equal(ids, torch.arange(len(ids)))


@pytest.mark.parametrize("order", [None, PartOrder(7)])
def test_batches_are_contiguous_views_of_one_tensor(order: PartOrder | None) -> None:
    batches = list(ColumnBatches(torch.arange(100), 4, SequenceLengths(7), order=order))
    assert all(part.is_contiguous() for batch in batches for part in batch)
    assert len({part.untyped_storage().data_ptr() for batch in batches for part in batch}) == 1


@given(lengths, orders, st.integers(0, 3), st.integers(0, 30))
def test_an_epoch_can_be_taken_up_anywhere(
    lengths: SequenceLengths, order: PartOrder | None, epoch: int, start: int
) -> None:
    batches = ColumnBatches(torch.arange(200), 2, lengths, order=order)
    expected = list(batches.epoch(epoch))[start:]
    for got, want in zip(batches.epoch(epoch, start), expected, strict=True):
        assert torch.equal(got[0], want[0])


def sequence(batches) -> list[list[int]]:  # type: ignore[no-untyped-def]
    return [inputs[:, 0].tolist() for inputs, _ in batches]


def test_iterating_asks_the_trainer_for_the_epoch_and_changes_nothing() -> None:
    now = (0, 0)
    batches = ColumnBatches(torch.arange(200), 2, SequenceLengths(5, "drawn"), position=lambda: now)
    first = sequence(batches)
    assert batches.state_dict()["batch"] == 0
    assert sequence(batches) == first
    now = (1, 3)  # only the epoch counts: a run that is not resumed starts its epochs at their start
    assert sequence(batches) == sequence(batches.epoch(1)) != first
    assert batches.state_dict() | {"cut": None} == {"epoch": 1, "batch": 3, "cut": None}


def test_a_loaded_position_holds_until_the_trainer_has_passed_it() -> None:
    now = (2, 4)
    batches = ColumnBatches(torch.arange(200), 2, SequenceLengths(5, "drawn"), position=lambda: now)
    state = batches.state_dict()
    resumed = ColumnBatches(torch.arange(200), 2, SequenceLengths(5, "drawn"), position=lambda: now)
    resumed.load_state_dict(state)
    now = (2, 0)
    assert sequence(resumed) == sequence(batches.epoch(2))[4:]
    now = (3, 0)
    assert sequence(resumed) == sequence(batches.epoch(3))


def test_a_position_of_another_cut_is_refused_in_mid_epoch_only() -> None:
    now = (1, 3)
    state = ColumnBatches(torch.arange(200), 2, SequenceLengths(10), position=lambda: now).state_dict()
    other = ColumnBatches(torch.arange(200), 4, SequenceLengths(20))
    with pytest.raises(ValueError, match=r"columns 2 \(now 4\), bptt 10 \(now 20\)"):
        other.load_state_dict(state)
    other.load_state_dict(state | {"batch": 0})
    assert sequence(other) == sequence(other.epoch(1))


def test_a_position_in_another_order_of_parts_is_refused_in_mid_epoch_only() -> None:
    def batches(order: PartOrder | None) -> ColumnBatches:
        return ColumnBatches(torch.arange(200), 2, SequenceLengths(10), order=order, position=lambda: (1, 3))

    plain, shuffled = batches(None), batches(PartOrder(4, seed=2))
    for one, other, message in (
        (plain, shuffled, r"shuffle_parts None \(now 4\), parts_seed None \(now 2\)"),
        (shuffled, plain, r"shuffle_parts 4 \(now None\), parts_seed 2 \(now None\)"),
        (shuffled, batches(PartOrder(4, seed=3)), r"with parts_seed 2 \(now 3\)"),
    ):
        state = one.state_dict()
        with pytest.raises(ValueError, match=message):
            other.load_state_dict(state)
        other.load_state_dict(state | {"batch": 0})
        assert sequence(other) == sequence(other.epoch(1))


@pytest.mark.parametrize(
    ("tokens", "arguments", "message"),
    [
        (
            39,
            {"columns": 10, "world_size": 2},
            r"40 tokens, two for each of 20 columns \(10 on each of 2.*got 39.*Lower",
        ),
        (40, {"columns": 0}, "at least 1 column, got 0"),
        (
            43,
            {"columns": 10, "world_size": 2, "order": PartOrder(3)},
            r"`shuffle_parts` of at most 2, so that every part of the 43 tokens has one for each of 20 columns, got 3",
        ),
        (40, {"columns": 2, "rank": 2, "world_size": 2}, r"`rank` in \[0, 2\), got 2"),
    ],
)
def test_bad_arguments(tokens: int, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ColumnBatches(torch.arange(tokens), lengths=SequenceLengths(5), **arguments)


def test_the_shortest_text() -> None:
    [(inputs, targets)] = ColumnBatches(torch.arange(4), 2, SequenceLengths(5))
    assert inputs.tolist() == [[0, 2]]
    assert targets.tolist() == [[1, 3]]


@pytest.mark.parametrize("order", [None, PartOrder(3)])
def test_the_text_lies_where_it_is_read(order: PartOrder | None) -> None:
    batches = ColumnBatches(torch.arange(40), 2, SequenceLengths(5), order=order, device=torch.device("meta"))
    read = [part for batch in batches for part in batch]
    assert read
    assert all(part.device.type == "meta" for part in read)
    assert len({part.untyped_storage()._cdata for part in read}) == 1  # slices of one tensor: nothing is copied
