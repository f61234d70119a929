from __future__ import annotations

import subprocess
import sys

from nashtune.interfaces.schedule import Anchor, Collect, Judge, Pair, Snapshot, Update
from nashtune.schedules.online import OnlineSchedule, snapshot_name


def test_rounds_go_from_policy_to_policy():
    first, second = OnlineSchedule(rounds=2).rounds()
    assert first.phases == (
        Collect(policy="start"),
        Judge(),
        Pair(),
        Anchor(previous={"start": 1.0}),
        Update(start="start"),
        Snapshot(name="main@1"),
    )
    assert second.phases == (
        Collect(policy="main@1"),
        Judge(),
        Pair(),
        Anchor(previous={"main@1": 1.0}),
        Update(start="main@1"),
        Snapshot(name="main@2"),
    )
    assert (first.policy, second.policy) == ("main@1", "main@2")


def test_each_update_is_one_step_with_a_fresh_optimiser():
    updates = [one for made in OnlineSchedule().rounds() for one in made.phases if isinstance(one, Update)]
    assert len(updates) == 3
    assert all(one.reset and one.step_scale == 1.0 and one.name == "main" for one in updates)


def test_reads_what_its_phases_use():
    assert set(OnlineSchedule.reads) == {"oracle", "sampler", "pairing"} and OnlineSchedule.gives_previous


def test_round_zero_is_the_start():
    assert [snapshot_name("aux", t) for t in (0, 1, 12)] == ["start", "aux@1", "aux@12"]


def test_schedules_of_games_need_no_torch():
    code = (
        "import sys\n"
        "from nashtune.spec.resolve import build, resolve\n"
        "for name in ('onpo', 'onpo_virtual', 'inpo', 'sppo', 'nash_md', 'nash_md_pg', 'nash_ema_pg', 'online_dpo'):\n"
        "    assert build(resolve(name).schedule).rounds()\n"
        "assert 'torch' not in sys.modules, 'torch was imported'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
