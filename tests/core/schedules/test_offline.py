from __future__ import annotations

from nashtune.interfaces.schedule import Anchor, Update
from nashtune.schedules.offline import OfflineSchedule


def test_one_round_without_sampling():
    (only,) = OfflineSchedule().rounds()
    assert only.phases == (Anchor(), Update())
    assert OfflineSchedule.reads == ()
