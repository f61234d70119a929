"""One line about something that a user did not ask for in so many words: `note: ...`, on one rank."""

from __future__ import annotations

import os

from nashtune.terminal import message


def note(text: str) -> None:
    """Say it, through Lightning's logger."""
    # here, so that the quick commands import none of it
    from lightning_utilities.core.rank_zero import rank_zero_info, rank_zero_only

    # Lightning sets this when it is imported, and keeps what it finds; without it `rank_zero_info` raises an error
    if not hasattr(rank_zero_only, "rank"):
        setattr(rank_zero_only, "rank", int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0"))))  # noqa: B010
    rank_zero_info(f"note: {message(text)}")
