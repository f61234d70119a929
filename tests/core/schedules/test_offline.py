from __future__ import annotations

from nashtune.schedules.offline import OfflineSchedule


def test_one_round_without_sampling():
    (only,) = OfflineSchedule().rounds()
    assert only.phases == ("anchor", "update")
    assert OfflineSchedule.reads == ()
