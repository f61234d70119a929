from __future__ import annotations

import json

from nashtune.comparison.clock import Clock
from nashtune.comparison.facts import differs


def test_every_setting_that_differs_is_named(ask):
    request = ask("dpo", "ipo", "online_dpo")
    found = {one["setting"]: one["values"] for one in differs(request.specs)}
    assert found["loss.name"]["dpo"] == "dpo"
    assert found["loss.name"]["ipo"] == "ipo"
    assert "optimizer.lr" not in found, "the same for all"
    assert not [name for name in found if name.split(".")[0] in ("about", "name")]
    assert found["oracle.name"] == {"dpo": "none", "ipo": "none", "online_dpo": "rules"}
    assert found["sampler.completions"] == {"online_dpo": 2}
    assert "references.name" not in found, "references have names of their own"
    assert differs(ask("dpo").specs) == []
    without = {one["setting"]: one["values"] for one in differs(ask("dpo", "simpo").specs)}
    assert without["references.ref.name"] == {"dpo": "base"}
    assert "references.name" not in without


def test_where_when_and_by_what(whole):
    found = json.loads((whole / "out" / "comparison.json").read_text())
    made = found["made"]
    assert made["command"][:4] == ["nashtune", "compare", "dpo", "online_dpo"]
    assert made["threads"] >= 1
    assert made["processor"]
    assert made["date"].startswith("20")
    assert made["adapter"] is None
    assert made["model"].endswith("tiny")
    assert made["versions"]["nashtune"] == found["versions"]["nashtune"]
    sources = found["data"]["sources"]
    assert {"data.train", "data.validation", "policy.path"} <= sources.keys()
    assert all(len(digest) == 64 for digest in sources.values())
    phases = found["phases"]
    assert phases["total_s"] == sum(seconds for name, seconds in phases.items() if name != "total_s")
    assert phases["training_s"] == sum(one["wall_seconds"] for one in found["costs"])


def test_seconds_of_all_attempts(tmp_path):
    for _ in range(2):
        with Clock(tmp_path).phase("judging"):
            pass
    first = Clock(tmp_path).seconds()["judging"]
    with Clock(tmp_path).phase("judging"):
        pass
    assert Clock(tmp_path).seconds()["judging"] > first > 0
    assert Clock(tmp_path / "new").seconds() == {}
