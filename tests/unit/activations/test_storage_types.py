"""Rounding, widening and the test for NaN agree with torch, bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from interpflow.activations.dtypes import (
    STORAGE_TYPES,
    is_finite,
    storage_type,
    to_float32,
    to_stored,
)
from interpflow.errors import UserError

FLOATS = [name for name, kind in STORAGE_TYPES.items() if kind.is_float]
any_float32 = st.lists(st.floats(width=32), min_size=1, max_size=20)


@pytest.mark.parametrize("name", FLOATS)
@given(numbers=any_float32)
def test_numpy_and_torch_are_rounded_alike(name: str, numbers: list[float]) -> None:
    array = np.array(numbers, dtype=np.float32)
    tensor = torch.from_numpy(array)
    expected = tensor.to(getattr(torch, name)).float().numpy()
    np.testing.assert_array_equal(to_float32(to_stored(array, name), name), expected)
    np.testing.assert_array_equal(to_float32(to_stored(tensor, name), name), expected)


@pytest.mark.parametrize("name", FLOATS)
@given(numbers=any_float32)
def test_finite_is_what_numpy_calls_finite(name: str, numbers: list[float]) -> None:
    bits = to_stored(np.array(numbers, dtype=np.float32), name)
    assert is_finite(bits, name) == np.isfinite(to_float32(bits, name)).all()


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_one_bad_value_among_many_is_found(name: str, bad: float) -> None:
    values = np.full((7, 33), 65504 if name == "float16" else 3e38, dtype=np.float32)
    if name == "bfloat16":
        values[:] = 1e38
    assert is_finite(to_stored(values, name), name)
    values[5, 20] = bad
    assert not is_finite(to_stored(values, name), name)


def test_bits_of_bfloat16_are_taken_as_they_are() -> None:
    bits = np.array([0x3F80, 0xC000], dtype=np.uint16)
    np.testing.assert_array_equal(to_float32(to_stored(bits, "bfloat16"), "bfloat16"), [1, -2])


def test_integers_and_floats_are_not_mixed() -> None:
    for values in (np.ones(2), torch.ones(2)):
        with pytest.raises(ValueError, match="cannot be stored as int32"):
            to_stored(values, "int32")
    for values in (np.ones(2, np.int64), torch.ones(2, dtype=torch.int64)):
        with pytest.raises(ValueError, match="cannot be stored as float16"):
            to_stored(values, "float16")
    with pytest.raises(ValueError, match="integers outside"):
        to_stored(np.array([2**31]), "int32")
    assert to_stored(torch.tensor([2**31 - 1]), "int32").dtype == np.int32


def test_an_unknown_type_is_one_message() -> None:
    with pytest.raises(UserError, match="cannot be stored as 'float8'"):
        storage_type("float8")


def test_nothing_is_copied_without_need() -> None:
    array = np.ones((3, 4), np.float16)
    assert np.shares_memory(to_stored(array, "float16"), array)
    tensor = torch.ones(3, 4, dtype=torch.bfloat16)
    assert to_stored(tensor, "bfloat16").ctypes.data == tensor.data_ptr()
