from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from made_runs import WEIGHTS, game_run, offline_run
from nashtune.cli.main import main
from nashtune.errors import InputError
from nashtune.html.run_page import render


def text_of(page: str) -> str:
    """What a reader sees, without the page's data and scripts."""
    seen = re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]*>", " ", seen).split())


def data_of(page: str, name: str) -> Any:
    (block,) = re.findall(rf'<script type="application/json" id="{name}-data">(.*?)</script>', page, re.DOTALL)
    return json.loads(block)


@pytest.fixture(scope="module")
def offline(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> str:
    return render(offline_run(tmp_path_factory.mktemp("offline") / "run", tiny))


@pytest.fixture(scope="module")
def game(tmp_path_factory: pytest.TempPathFactory, tiny: Path) -> str:
    return render(game_run(tmp_path_factory.mktemp("game") / "run", tiny))


def test_a_run_says_what_was_trained_and_what_came_of_it(offline: str):
    seen = text_of(offline)
    for words in (
        "Title of dpo &lt;b&gt;",
        "−log σ(β(h_w − h_l)) &amp; more",
        "after 60 optimiser steps",
        "held-out accuracy 0.750 chance 0.500",
        "KL(policy ‖ ref) −0.01 nats per answer (k1), without an interval, 8 answers; k3 0.03",
        "Implicit reward: β times the log-ratio to the reference that the loss reads",
        "KL along held-out answers: 0.02 at step 60, the only time that it was taken",
        "tokens trained on, per second 1 234",
        "time inside training steps 1 min 15 s",
        "peak memory 1.50 GiB",
        "versions: torch 2.13.0",
        "machine: processor a &lt;processor&gt;",
        "nashtune fit --spec dpo",
    ):
        assert words in seen, words
    assert "name : fixed" in seen or "name: fixed" in seen


def test_curves_are_drawn_with_their_values(offline: str):
    figures = re.findall(r'<figure class="card" id="(curve-[\w-]+)">(.*?)</figure>', offline, re.DOTALL)
    assert [name for name, _ in figures] == [
        "curve-loss",
        "curve-preference-accuracy",
        "curve-implicit-reward-margin",
        "curve-kl-control",
        "curve-implicit-rewards",
    ]
    for name, figure in figures:
        assert "<path" in figure or "<circle" in figure, name
        assert f'aria-labelledby="{name}-title {name}-about"' in figure
    assert "<td>0.4</td>" in figures[0][1]  # the held-out loss, at the last step


def test_answers_before_and_after_and_held_out_rows(offline: str):
    answers = data_of(offline, "answers")
    assert answers["policies"] == ["before", "after"] and len(answers["entries"]) == 4
    pairs = data_of(offline, "pairs")
    assert len(pairs["items"]) == 45 and pairs["winners"] == ["longer answer"]
    assert "nashtune predict" in text_of(offline)  # how to add what the model says of them


def test_what_is_not_part_of_a_method_is_said_and_not_drawn(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    settings = yaml.safe_load((run / "config.yaml").read_text())
    settings["spec"]["kl"] = "none"
    (run / "config.yaml").write_text(yaml.safe_dump(settings))
    log = run / "logs" / "attempt_0" / "metrics.csv"
    log.write_text(log.read_text().replace("train/beta", "train/other"))
    page = render(run)
    assert 'id="curve-kl-control"' not in page and "KL control: not part of this method." in text_of(page)
    assert "the loss reads, without β, as this spec has none; in nats" in text_of(page) and "β · nats" not in page


def test_the_unit_of_rewards_is_the_methods_own(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    report = json.loads((run / "report.json").read_text())
    (run / "report.json").write_text(json.dumps({**report, "units": {"reward": "τ · nats per token"}}))
    page = render(run)
    assert page.count(">τ · nats per token</text>") == 2 and "Implicit reward: " not in text_of(page)


def test_the_attempts_of_a_run_are_told_apart(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    (run / "config.1.yaml").write_text((run / "config.yaml").read_text())
    assert "Time, memory and speed are of the attempt that finished the run." in text_of(render(run))
    report = json.loads((run / "report.json").read_text())
    report["throughput"]["lost_seconds"] = 5.0
    first = {"began": "2026-11-23", "command": ["nashtune", "fit", "--spec", "dpo"], "steps": 40, "tokens": 9000}
    lost = {"training_seconds": 45.0, "lost_steps": 4, "lost_seconds": 5.0}
    unknown = dict.fromkeys((*first, *lost))
    report["attempts"] = [{**first, **lost, "attempt": 0}, {**unknown, "attempt": 1}]
    (run / "report.json").write_text(json.dumps(report))
    seen = text_of(render(run))
    assert "are of all 2 attempts; of the time 5.0 s were behind the checkpoint" in seen
    assert "1 2026-11-23 40 9 000 45 s nashtune fit --spec dpo 2 – – – – –" in seen


def test_a_training_of_a_comparison_names_it(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "four-001" / "runs" / "dpo" / "seed-1", tiny)
    assert "offline · seed-1" in text_of(render(run))
    (tmp_path / "four-001" / "comparison.yaml").write_text("{}")
    (tmp_path / "four-001" / "index.html").write_text("")
    page = render(run)
    assert "offline · four-001 / dpo / seed-1" in text_of(page) and 'href="../../../index.html"' in page


MARGINS = (3.4, 0.0, -1.0)


def origin(run: Path) -> dict[str, str]:
    report = json.loads((run / "report.json").read_text())
    data = f"sha256:{report['data']['validation']['fingerprint'][:16]}"
    return {"weights": report["weights"], "data": data, "made_by": "sha256:0"}


def predicted(run: Path, count: int = 45, **other: Any) -> str:
    """The page with predictions of so many rows."""
    lines = [
        {"row": i, "reward_chosen": 0.5 + MARGINS[i % 3], "reward_rejected": 0.5, **origin(run), **other}
        for i in range(count)
    ]
    (run / "predictions.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines))
    return render(run)


def test_predictions_join_the_rows(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    pairs = data_of(predicted(run), "pairs")
    assert [item["w"] for item in pairs["items"][:3]] == ["agrees", "is undecided", "disagrees"]
    assert [item["p"] for item in pairs["items"][:3]] == pytest.approx([3.4, 0.0, -1.0])


def test_rows_that_a_run_has_left_out_are_not_shown(tmp_path: Path, tiny: Path):
    page = predicted(offline_run(tmp_path / "run", tiny, long=5))
    pairs = data_of(page, "pairs")
    assert len(pairs["items"]) == 45 and pairs["items"][0]["p"] == pytest.approx(3.4)
    assert pairs["texts"][pairs["items"][0]["a"][0]["t"]].startswith("good 0 ")
    assert "The run has used 45 of 50 rows, which are those shown; 5 were left out" in text_of(page)


def test_rows_that_are_others_by_now_are_shown_without_predictions(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    held_out = tmp_path / "held-out.jsonl"
    held_out.write_text(held_out.read_text().replace("bad 7", "bad, and another one"))
    page = predicted(run)
    assert f"{held_out} is not any more what the run has read" in text_of(page)
    assert "does not belong here: which rows it numbers is not known" in text_of(page)
    assert len(data_of(page, "pairs")["items"]) == 45 and data_of(page, "pairs")["winners"] == ["longer answer"]


@pytest.mark.parametrize(
    ("count", "other", "why"),
    [
        (40, {}, "it numbers 40 rows, and the run has used 45"),
        (45, {"row": 3}, "it numbers 45 rows, and the run has used 45"),
        (45, {"weights": "sha256:f"}, f"it is of the weights sha256:f, and the run has ended with {WEIGHTS}"),
        (45, {"data": "sha256:0123456789abcdef"}, "it is of other rows than data has today"),
        (45, {"data": "sha"}, "it is of other rows than data has today"),
        (45, {"made_by": None}, "its lines do not name one and the same made_by"),
    ],
)
def test_predictions_of_something_else_are_not_shown(
    tmp_path: Path, tiny: Path, count: int, other: dict[str, Any], why: str
):
    page = predicted(offline_run(tmp_path / "run", tiny), count, **other)
    assert f"Rewards are not shown, predictions.jsonl does not belong here: {why}" in text_of(page)
    assert data_of(page, "pairs")["winners"] == ["longer answer"]


def test_a_game_shows_its_rounds(game: str):
    seen = text_of(game)
    assert "main@3 beats start 0.600 0.55 to 0.65" in seen
    assert "4 held-out prompts, both orders averaged; 95 % bootstrap intervals" in seen
    assert "40 comparisons; 2 equal answers, which count ½" in seen
    head = re.search(r"round prompts completions mean completion tokens .*? preference accuracy", seen)
    assert head is not None and "dropped: tie" in head[0] and "mean score" not in head[0]
    assert "1 10 20 9.0 25 % 10 10 1 2 2 500 0.500" in seen
    assert 'id="rounds-wins"' in game and 'id="rounds-kl"' in game


def test_the_cells_that_are_sure_are_marked(game: str):
    cells = re.findall(r'<td class="([^"]*)" style="--s:(\d+)"[^>]*><b>([^<]*)</b>', game)
    assert ("win sure", "25", "0.60") in cells and ("loss sure", "25", "0.40") in cells
    assert ("win", "5", "0.52") in cells and ("loss", "5", "0.48") in cells


def test_the_pairs_of_a_game_have_their_prompts_as_the_model_read_them(game: str):
    pairs = data_of(game, "pairs")
    assert pairs["rounds"] == [1, 2, 3] and len(pairs["items"]) == 30
    assert pairs["begin"] == "<|system|>Be kind.\n<|user|>" and pairs["end"] == "<|assistant|>"
    first = pairs["items"][0]
    assert pairs["texts"][first["q"]] == "Prompt 0 of round 1"
    assert [(one["l"], one["n"], one["s"]) for one in first["a"]] == [("chosen", 3, "win"), ("rejected", 7, "loss")]
    assert first["w"] == "shorter answer" and first["p"] == 0.5
    assert pairs["texts"][first["a"][0]["t"]].startswith("round 1 prompt 0 answer 0")


def test_of_many_pairs_a_page_holds_some_of_every_round(tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("nashtune.html.browser.MOST_ITEMS", 12)
    page = render(game_run(tmp_path / "run", tiny))
    assert [item["r"] for item in data_of(page, "pairs")["items"]] == [1] * 4 + [2] * 4 + [3] * 4
    assert "12 of 30 are on this page, evenly over all" in text_of(page)


def test_values_that_are_not_finite_are_counted(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    log = run / "logs" / "attempt_0" / "metrics.csv"
    lines = log.read_text().splitlines()
    place = lines[0].split(",").index("train/loss")
    lines[5] = ",".join("nan" if i == place else cell for i, cell in enumerate(lines[5].split(",")))
    log.write_text("\n".join(lines) + "\n")
    assert "values that were not finite and are not drawn: 1." in text_of(render(run))


def test_every_policy_of_a_game_answers_side_by_side(game: str):
    answers = data_of(game, "answers")
    assert answers["policies"] == ["start", "main@1", "main@2", "main@3"]
    assert [len(entry["a"]) for entry in answers["entries"]] == [4, 4, 4, 4]
    assert answers["entries"][0]["a"][0]["d"] == "cut at the token limit"


def test_a_run_that_goes_on_has_a_page(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    (run / "report.json").unlink()
    assert "This run is not finished: it has logged 60 optimiser steps" in text_of(render(run))


def test_rounds_of_rewards(tmp_path: Path, tiny: Path):
    from nashtune.interfaces.oracle import Scored
    from nashtune.interfaces.sampler import Completion
    from nashtune.journal.records import write_completions, write_scores
    from nashtune.journal.store import Journal

    run = offline_run(tmp_path / "run", tiny)
    journal = Journal(run / "journal")
    drawn = [Completion(prompt=7, k=k, token_ids=(1,) * (k + 1), token_logp=(), finish="stop") for k in range(3)]
    write_completions(journal, 1, "policy", 0, drawn, ["a", "b", "c"])
    scores = [Scored(prompt=7, role="policy", k=k, mean=m, variance=0.25) for k, m in enumerate((0.5, 2.0, -1.0))]
    write_scores(journal, 1, 0, scores)
    page = render(run)
    pairs = data_of(page, "pairs")
    (group,) = pairs["items"]
    assert [(one["l"], pairs["texts"][one["t"]], one["d"]) for one in group["a"]] == [
        ("reward +2", "b", "± 0.5"),
        ("reward +0.5", "a", "± 0.5"),
        ("reward −1", "c", "± 0.5"),
    ]
    assert group["w"] == "equal length" and group["p"] == 2.0
    assert "this run&#39;s journal keeps no prompts" in page


def test_a_game_that_was_stopped_before_its_first_pairs_has_a_page(tmp_path: Path, tiny: Path):
    from nashtune.interfaces.oracle import Judgement
    from nashtune.interfaces.sampler import Completion
    from nashtune.journal.records import write_completions, write_judgements
    from nashtune.journal.store import Journal

    run = offline_run(tmp_path / "run", tiny)
    (run / "report.json").unlink()
    journal = Journal(run / "journal")
    drawn = [Completion(prompt=0, k=k, token_ids=(1,), token_logp=(), finish="stop") for k in range(2)]
    write_completions(journal, 1, "policy", 0, drawn, ["a", "b"])
    write_judgements(journal, 1, 0, [Judgement(prompt=0, first=0, second=1, p=0.5)])
    page = render(run)
    assert 'id="pairs-data"' not in page and "This run is not finished" in page


def test_judgements_against_an_opponent(tmp_path: Path, tiny: Path):
    from nashtune.interfaces.oracle import Judgement
    from nashtune.interfaces.sampler import Completion
    from nashtune.journal.records import write_completions, write_judgements
    from nashtune.journal.store import Journal

    run = offline_run(tmp_path / "run", tiny)
    journal = Journal(run / "journal")
    drawn = [Completion(prompt=0, k=k, token_ids=(1,), token_logp=(), finish="length") for k in range(3)]
    for role in ("policy", "opponent"):
        write_completions(journal, 1, role, 0, drawn, [f"{role} {k}" for k in range(3)])
    asked = [Judgement(prompt=0, first=k, second=k, p=p) for k, p in enumerate((0.9, 0.25, float("nan")))]
    write_judgements(journal, 1, 0, asked)
    pairs = data_of(render(run), "pairs")
    assert pairs["name"] == "judgements" and pairs["p"] == "P(policy beats opponent)"
    assert [(item["w"], item["p"]) for item in pairs["items"]] == [
        ("policy", 0.9),
        ("opponent", 0.25),
        ("no answer", None),
    ]
    second = pairs["items"][1]["a"]
    assert [(one["l"], pairs["texts"][one["t"]], one["s"]) for one in second] == [
        ("policy", "policy 1", "loss"),
        ("opponent", "opponent 1", "win"),
    ]


def test_a_reward_model_shows_its_verdicts(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    report = json.loads((run / "report.json").read_text())
    mean = {"mean": 0.8, "se": 0.1, "pairs": 40}
    bins = [
        {"from": 0.5, "to": 0.6, "pairs": 10, "claimed": 0.55, "right": 0.5},
        {"from": 0.9, "to": 1.0, "pairs": 30, "claimed": 0.95, "right": 0.9},
    ]
    report["verdicts"] = {
        "kind": "comparisons",
        "pairs": 40,
        "prompts": 20,
        "accuracy": mean,
        "accuracy_first": mean,
        "accuracy_second": mean,
        "position_bias": {"flips": mean, "first": mean},
        "calibration": {"ece": 0.05, "log_loss": 0.4, "bins": bins},
    }
    (run / "report.json").write_text(json.dumps(report))
    page = render(run)
    assert "both orders, averaged 0.800 ± 0.100 40" in text_of(page)
    assert 'id="reliability"' in page and "Expected calibration error 0.050" in page


def test_how_many_prompts_were_answered_of_those_asked_for_and_that_nothing_was_trained(tmp_path: Path, tiny: Path):
    run = offline_run(tmp_path / "run", tiny)
    assert "Nothing was trained" not in render(run)
    report = json.loads((run / "report.json").read_text())
    report |= {"held_out_prompts": {"asked": 8, "answered": 5}, "steps": 0, "untrained": "all 8 pairs <tied>"}
    (run / "report.json").write_text(json.dumps(report))
    seen = text_of(render(run))
    assert "5 held-out prompts were answered, of 8 that samples.prompts asks for." in seen
    assert "Nothing was trained: all 8 pairs &lt;tied&gt;. The weights are the start model&#39;s" in seen


def test_held_out_prompts_of_a_game_stand_beside_its_answers(tmp_path: Path, tiny: Path, game: str):
    answers = data_of(game, "answers")
    assert [answers["texts"][entry["q"]][:11] for entry in answers["entries"]] == [f"Held-out {i}?" for i in range(4)]
    run = game_run(tmp_path / "run", tiny)
    for round in (1, 2, 3, 4):
        manifest = run / "answers" / f"round-00{round}" / "manifest.json"
        kept = json.loads(manifest.read_text())
        kept["files"].pop("prompts.parquet")
        manifest.write_text(json.dumps(kept))
    page = render(run)
    assert page.count("Held-out prompts stand here as numbers: this run has kept none beside its answers.") == 1
    answers = data_of(page, "answers")
    assert answers["texts"][answers["entries"][0]["q"]] == "held-out prompt 0"


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("report.json", "{", "report.json is torn or was altered"),
        ("report.json", "[]", "holds list, expected dict"),
        ("config.yaml", "spec: [", "config.yaml is torn or was altered"),
        ("config.yaml", "!!python/object/apply:os.system ['true']", "config.yaml is torn or was altered"),
        ("config.yaml", "spec: dpo", "names no spec"),
        ("predictions.jsonl", "nonsense\n", "is not what `nashtune predict` prints"),
    ],
)
def test_a_torn_file_is_named(tmp_path: Path, tiny: Path, name: str, text: str, expected: str):
    run = offline_run(tmp_path / "run", tiny)
    (run / name).write_text(text)
    with pytest.raises(InputError, match=re.escape(expected)):
        render(run)


def test_the_command_writes_one_file_and_replaces_only_pages(
    tmp_path: Path, tiny: Path, capsys: pytest.CaptureFixture[str], refused: Callable[..., str]
):
    run = offline_run(tmp_path / "run", tiny)
    for _ in range(2):
        assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.startswith(f"{run / 'report.html'}   (")
    page = (run / "report.html").read_text()
    assert page.startswith("<!DOCTYPE html>") and page.rstrip().endswith("</html>")
    mine = tmp_path / "mine.html"
    mine.write_text("<p>my own</p>")
    assert "is no page that nashtune has made" in refused("report", str(run), "--out", str(mine))
    assert mine.read_text() == "<p>my own</p>"
    assert "is a folder; name a file in it" in refused("report", str(run), "--out", str(tmp_path))


def test_what_is_no_run_is_refused(tmp_path: Path, tiny: Path, refused: Callable[..., str]):
    offline_run(tmp_path / "runs" / "one", tiny)
    assert "no such folder" in refused("report", str(tmp_path / "none"))
    assert f"did you mean {tmp_path / 'runs' / 'one'}?" in refused("report", str(tmp_path / "runs"))
    (tmp_path / "runs" / "pipeline.yaml").write_text("stages: []")
    assert "each of its stages has a page of its own; give the folder of a stage that trains: one" in refused(
        "report", str(tmp_path / "runs")
    )
