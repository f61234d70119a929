"""Schedules that nothing would execute are refused."""

from __future__ import annotations

from nashtune.errors import InputError
from nashtune.interfaces import Schedule
from nashtune.schedules.offline import OfflineSchedule


def refuse_other_schedules(schedule: Schedule, name: str) -> None:
    """Without a sampler there is one data set, and one round over it; anything else must not pass for it.

    Raises:
        InputError: the schedule declares something else.
    """
    rounds = schedule.rounds()
    if rounds != OfflineSchedule().rounds():
        phases = "; ".join(", ".join(type(phase).__name__.lower() for phase in one.phases) for one in rounds)
        raise InputError(
            f"spec.schedule: '{name}' draws no completions and declares {len(rounds)} round(s) ({phases}); without a "
            "sampler there is one round of anchor, update: use schedule: offline"
        )
