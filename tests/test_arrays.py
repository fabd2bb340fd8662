"""Class labels and numbers that can be trusted."""

import numpy as np
import pytest

from poison_jax.arrays import class_labels, finite
from poison_jax.errors import UserError


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, np.int8])
def test_labels_are_returned_as_they_are(dtype):
    labels = np.array([0, 2, 1], dtype)
    np.testing.assert_array_equal(class_labels(labels, 3, 3), labels)
    assert class_labels([0, 2, 1], 3, 3).shape == (3,)
    assert class_labels(np.zeros(0, dtype), 0, 3).size == 0


@pytest.mark.parametrize(
    ("labels", "says"),
    [
        ([[0], [1]], r"\[2, 1\]: flatten them to \[N\], with labels.reshape\(-1\)"),
        (np.eye(3)[:2], "one-hot rows take labels.argmax"),
        ([0, 1, 2], r"2 images and labels \(3,\) are not N images and N labels"),
        (0, r"labels \(\)"),
        ([0.0, 1.0], "float64: give the integers 0 to 2"),
        ([False, True], "bool: give the integers"),
        (["a", "b"], "give the integers"),
        ([1, 3], "labels run from 1 to 3, the 3 classes from 0 to 2"),
        ([-1, 2], "labels run from -1 to 2"),
        (np.array([0, 255], np.uint8), "from 0 to 255"),
    ],
)
def test_labels_that_are_no_classes(labels, says):
    with pytest.raises(UserError, match=says):
        class_labels(labels, 2, 3)


def test_finite():
    assert finite("x", [1, 2]).dtype == np.float64
    assert finite("x", []).size == 0
    assert finite("x", True, 0, 1) == 1


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([[np.nan, 1, -np.inf]], r"^x: 2 of 3 values are not finite$"),
        ([[1.0, 2.0], [1.0]], r"^x is not a rectangular array of numbers$"),
        ([["a"]], r"^x must be real numbers, not <U1$"),
        ([[1j]], r"^x must be real numbers, not complex128$"),
        ([[None]], r"^x must be real numbers, not object$"),
        (1.0, r"^x is \[\], must be 2-dimensional or 3-dimensional and not empty$"),
        (np.ones((3, 0)), r"^x is \[3, 0\], must be .* and not empty$"),
    ],
)
def test_values_that_are_not_finite_or_no_array(values, says):
    with pytest.raises(UserError, match=says):
        finite("x", values, 2, 3)
