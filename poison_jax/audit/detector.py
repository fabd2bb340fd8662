"""Types of the detectors: scores of networks and of training data, and the detector itself."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import NamedTuple

import numpy as np


class NetworkScore(NamedTuple):
    """What a detector of poisoned networks measures in one of them."""

    statistic: float  # larger: more like a poisoned network
    target: int | None = None  # the class that stands out
    picture: np.ndarray | None = None  # [H, W, C]: a direction or pattern in input space that it found
    authors: str = ""  # what its authors' own threshold says: "poisoned", "clean"; "" where there is none
    others: Mapping[str, float] = MappingProxyType({})  # secondary numbers by name, for the table alone


class DataScore(NamedTuple):
    """What a detector of poisoned training data measures."""

    suspicion: np.ndarray  # [N], larger: more like a poisoned example
    classes: np.ndarray  # [K], larger: more like the target class; NaN for one without examples
    flagged: np.ndarray  # bool [N]: what its authors' own rule would remove


class Detector(NamedTuple):
    """A detector.

    `score` is called as `score(subject, images, labels, *, key, batch_size)` for networks and data, and as
    `score(subject, images, clean, *, key, batch_size) -> suspicion [N]` for inputs; images are in [0, 1].
    """

    name: str
    statistic: str  # what its number is, in words
    needs: str  # what it has to be given beside the network, in words
    score: Callable
    two_sided: bool = False  # whether a number that is too small is as suspicious as one that is too large
    uses_clean: bool = False  # of data: whether `score` takes `clean`, images and labels known to be clean
