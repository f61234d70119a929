"""The disk that the weights of a comparison's trainings will take, and what is free where they will lie."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from nashtune.comparison.folder import run_folder
from nashtune.comparison.plan import Entry
from nashtune.memory.disk import free_space
from nashtune.pipeline.fit_command import finished
from nashtune.spec.plan import size


def disk_notes(entries: Sequence[Entry], seeds: Sequence[int], folder: Path) -> list[str]:
    """What is still to be written, and whether there is room, in sentences.

    Args:
        entries: The specs, in the order of training.
        seeds: Of each.
        folder: The comparison's, there or not; trainings that have ended in it are not counted.
    """
    to_come = [one for seed in seeds for one in entries if not finished(run_folder(folder, one.name, seed))]
    unknown = sorted({one.name for one in to_come if one.disk is None})
    if unknown:
        return [f"disk: not predicted for {', '.join(unknown)}"]
    if not to_come:
        return []
    written = peak = room_for = 0
    free = free_space(folder)
    for one in to_come:
        assert one.disk is not None, "looked at above"
        peak = max(peak, written + one.disk["peak"])
        room_for += peak <= free
        written += one.disk["at_the_end"]
    trainings = "1 training takes" if len(to_come) == 1 else f"{len(to_come)} trainings take"
    notes = [f"disk: {trainings} {size(written)}, up to {size(peak)} while they save; free: {size(free)}"]
    if room_for < len(to_come):
        notes.append(
            f"note: the disk has room for {room_for} of {len(to_come)} trainings: the comparison will stop there, and "
            "go on where it was when there is more; --run_dir FOLDER puts it on another disk"
        )
    return notes
