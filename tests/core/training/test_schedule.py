from __future__ import annotations

import pytest

from nashtune.errors import InputError
from nashtune.interfaces import Round, Schedule
from nashtune.interfaces.schedule import Anchor, Snapshot, Update
from nashtune.schedules.offline import OfflineSchedule
from nashtune.training.refusals import refuse_other_schedules


class TwoRounds(Schedule):
    def rounds(self) -> tuple[Round, ...]:
        return (Round(phases=(Anchor(), Update())), Round(phases=(Anchor(), Update(), Snapshot(name="main@2"))))


def test_a_schedule_that_cannot_be_run_does_not_pass_for_offline() -> None:
    refuse_other_schedules(OfflineSchedule(), "offline")
    with pytest.raises(InputError, match=r"'two' draws no completions and declares 2 .*use schedule: offline"):
        refuse_other_schedules(TwoRounds(), "two")
