"""Numbers with intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nashtune.evaluation.plain import array

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Estimate:
    """Numbers and their intervals, three arrays of one shape (which may be (), for a single number).

    Args:
        value: From all answers; NaN where there were none.
        low: Lower ends; NaN where nothing could be resampled.
        high: Upper ends.
    """

    value: Floats
    low: Floats
    high: Floats

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Estimate:
        """Inverse of `nashtune.evaluation.plain.plain`."""
        return cls(*(array(found[name]) for name in ("value", "low", "high")))

    def __getitem__(self, index: Any) -> Estimate:
        """Of one entry, row or column."""
        return Estimate(*(np.asarray(part[index]) for part in (self.value, self.low, self.high)))
