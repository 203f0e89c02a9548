"""Packing: rows of modalities and back, for equal and for different lengths."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from multifuse._internal.packing import Packing


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_rows_hold_the_tokens_of_each_modality_and_lead_back(lengths: list[int]) -> None:
    packing = Packing({f"modality_{index}": length for index, length in enumerate(lengths)})
    packed = torch.arange(2.0 * sum(lengths)).view(2, -1) + 1
    rows = packing.rows(packed)
    assert rows.shape == (2, len(lengths), max(lengths))
    assert torch.equal(packing.from_rows(rows), packed)
    for row, part in zip(rows.unbind(1), packing.parts(packed, 1).values(), strict=True):
        assert torch.equal(row[:, : part.shape[1]], part)
        assert not row[:, part.shape[1] :].any()


def test_rows_have_a_mask_only_where_not_all_entries_are_tokens() -> None:
    device = torch.device("cpu")
    assert Packing({"text": 2, "audio": 2}).rows_mask(None, device) is None
    mask = Packing({"text": 1, "audio": 2}).rows_mask(None, device)
    assert mask is not None
    assert mask.tolist() == [[True, False], [True, True]]


def test_what_belongs_to_a_modality_is_repeated_for_its_tokens() -> None:
    repeated = Packing({"text": 2, "audio": 1}).of_rows(torch.tensor([[3.0], [5.0]]))
    assert repeated.tolist() == [[3.0], [3.0], [5.0]]
