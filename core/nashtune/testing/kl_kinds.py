"""Which batches a KL controller works on, as its class says."""

from __future__ import annotations

from nashtune.interfaces import KLController

KINDS = {"pairs": ("pairs", "comparisons"), "examples": ("examples",), "rollouts": ("rollouts",)}
"""Kind of a batch -> the rows that come as such a batch."""
SAY_ROWS = "where it works on some kinds of rows alone, let the class say which, such as rows = ('pairs',)"


def declared_kinds(cls: type[KLController]) -> tuple[str, ...]:
    """Kinds of batches that a controller's class says it works on."""
    if not cls.rows:
        return ("pairs",) if cls.statistics else tuple(KINDS)
    return tuple(kind for kind, rows in KINDS.items() if set(rows) & set(cls.rows))
