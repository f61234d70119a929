"""Numbers of reports as JSON has them."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


def plain(part: Any) -> Any:
    """Dictionaries of dataclasses, nested lists of arrays and tuples; None for NaN, which JSON does not have."""
    if is_dataclass(part):
        return {one.name: plain(getattr(part, one.name)) for one in fields(part)}
    if isinstance(part, tuple) or (isinstance(part, np.ndarray) and part.ndim):
        return [plain(one) for one in part]
    if isinstance(part, float | np.ndarray):
        return None if np.isnan(part) else float(part)
    return part


def array(values: Any) -> NDArray[np.float64]:
    """Numbers from what `plain` has made of an array."""
    return np.array(values, dtype=np.float64)  # None becomes NaN
