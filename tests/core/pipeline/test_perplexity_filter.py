from __future__ import annotations

import json
import math
import random

import pytest
import torch
import yaml

from lab import write_rows
from nashtune.cli.main import main
from nashtune.logprobs import get_engine
from nashtune.models.config import PolicyConfig
from nashtune.pipeline.perplexity_score import Scorer

FILTER = "stages:\n  filter: {name: perplexity_filter}\n"


@pytest.fixture
def alone(line):
    """A pipeline of nothing but the filter; gives its report and the rows that it keeps."""
    (line.folder / "alone.yaml").write_text(FILTER)

    def run(*settings: str, folder: str = "out", code: int = 0):
        options = [part for setting in settings for part in _option(setting)]
        out = line.run(*options, pipeline="alone.yaml", folder=folder, code=code)
        report = json.loads((out / "filter" / "report.json").read_text()) if code == 0 else {}
        train = out / "filter" / "train.jsonl"
        return report, [json.loads(text) for text in train.read_text().splitlines()] if code == 0 else []

    return run


def _option(setting: str) -> list[str]:
    name, _, value = setting.partition("=")
    return [f"--{name}" if "." in name else f"--stages.filter.{name}", value]


@pytest.fixture
def sequences():
    draw = random.Random(0)
    sizes = [(draw.randint(2, 20), draw.randint(1, 30)) for _ in range(40)]
    return [tuple([draw.randint(6, 250) for _ in range(n)] for n in size) for size in sizes]


def scorer(tiny, folder, engine="tiled", batch_tokens=4096):
    config = PolicyConfig(path=str(tiny))
    return Scorer(config, get_engine(engine), folder, cpu=True, batch_tokens=batch_tokens, say=lambda line: None)


def test_scores_are_those_of_plain_transformers(tiny, tmp_path, sequences):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny).double().eval()
    found = scorer(tiny, tmp_path).score("answers", sequences, str)
    for (prompt, answer), (nll, tokens) in zip(sequences, found, strict=True):
        with torch.no_grad():
            logp = model(torch.tensor([[*prompt, *answer]])).logits[0].log_softmax(-1)
        own = [logp[len(prompt) + t - 1, token].item() for t, token in enumerate(answer)]
        assert tokens == len(answer)
        assert nll == pytest.approx(-math.fsum(own) / len(own), rel=2e-6)


def test_scores_depend_neither_on_batches_nor_on_the_engine(tiny, tmp_path, sequences):
    one = scorer(tiny, tmp_path / "one").score("answers", sequences, str)
    alone = scorer(tiny, tmp_path / "alone", batch_tokens=1).score("answers", sequences, str)
    shuffled = scorer(tiny, tmp_path / "back").score("answers", sequences[::-1], str)[::-1]
    dense = scorer(tiny, tmp_path / "dense", engine="dense").score("answers", sequences, str)
    for other in (alone, shuffled, dense):
        assert [nll for nll, _ in other] == pytest.approx([nll for nll, _ in one], rel=2e-6)


def test_what_is_scored_is_not_scored_again(tiny, tmp_path, sequences, monkeypatch):
    first = scorer(tiny, tmp_path).score("answers", sequences, str)
    monkeypatch.setattr(Scorer, "_sums", lambda *args: pytest.fail("scored again"))
    assert scorer(tiny, tmp_path).score("answers", sequences, str) == first


def test_gibberish_is_left_out_and_columns_are_kept(alone, line):
    lines = [json.loads(text) for text in (line.folder / "train.jsonl").read_text().splitlines()]
    report, rows = alone("rule=absolute", "tau=1e9")
    assert rows == lines  # every column, in the same order, and nothing else
    assert (line.folder / "out/filter/train.jsonl").read_bytes() == (line.folder / "train.jsonl").read_bytes()
    nll = [json.loads(text) for text in (line.folder / "out/filter/scores.jsonl").read_text().splitlines()]
    ppl = sorted(math.exp(answer["nll"]) for row in nll for answer in row["answers"])
    assert report["kept_share"] == 1.0
    limit = (ppl[20] + ppl[21]) / 2
    report, rows = alone("rule=absolute", f"tau={limit!r}", folder="half")
    worst = [max(answer["nll"] for answer in row["answers"]) for row in nll]
    kept = [row for row, value in zip(lines, worst, strict=True) if value < math.log(limit)]
    assert rows == kept
    assert 0 < len(kept) < len(lines)
    assert report["rows"] == {"read": 24, "scored": 24, "kept": len(kept), "left_out": {"rule": 24 - len(kept)}}
    assert report["by_source"]["noise"]["rows"] == 2
    assert sum(part["kept"] for part in report["by_source"].values()) == len(kept)
    assert report["by_file"] == {"train.jsonl": {"rows": 24, "kept": len(kept), "share": len(kept) / 24}}


def test_own_samples_of_quantile_one_bound_their_own_prompts(alone, line):
    """The model's own answers, given back to the filter as candidates, all pass at q = 1 and about half at q = 0.5."""
    from nashtune.journal.records import read_completions
    from nashtune.journal.store import Journal

    alone("rule=own_quantile", "q=1.0")
    journal = Journal(line.folder / "out" / "filter" / "journal")
    drawn, texts = read_completions(journal, 1, "policy", 0)
    assert len(drawn) == 48
    report = json.loads((line.folder / "out" / "filter" / "report.json").read_text())
    assert report["own_samples"]["samples"] == 48
    own = journal.read_tensors(1, "own-0000")["sums"]
    ppl = [math.exp(-total / len(one.token_ids)) for total, one in zip(own.tolist(), drawn, strict=True)]
    assert report["limits"][0]["high"] == max(ppl)
    half, _ = alone("rule=own_quantile", "q=0.5", folder="half")
    assert sum(value <= half["limits"][0]["high"] for value in ppl) == 24
    assert texts


def test_buckets_and_gaps_reach_the_report(alone):
    report, rows = alone("length_buckets=[8, 16]", "pair_gap=0.01", "own_prompts=5")
    assert [limit["tokens"] for limit in report["limits"]] == ["1-8", "9-16", "17 and more"]
    assert [limit["from_all_lengths"] for limit in report["limits"]] == [False, True, True]
    assert report["own_samples"]["prompts"] == 5
    left_out = report["rows"]["left_out"]
    assert left_out["pair_gap"] > 0
    assert len(rows) == 24 - sum(left_out.values())
    assert set(report["histograms"]["counts"]) == {"chosen", "rejected", "own"}
    assert sum(report["histograms"]["counts"]["chosen"]) == 24
    assert report["tokens"]["chosen"]["before"]["mean"] > 8
    assert 0 <= report["lower_perplexity_is_chosen"]["auc"] <= 1


def test_candidates_of_several_files(alone, line):
    write_rows(line.folder / "a.jsonl", [{"prompt": "Q", "responses": ["yes", "\x01\x02\x03\x04", "no"], "id": 7}])
    write_rows(line.folder / "b.jsonl", [{"prompt": "R", "completion": "fine", "label": True}])
    report, rows = alone("rule=topk", "n=2", "sources=[a.jsonl, b.jsonl]")
    assert len(rows) == 2
    assert len(rows[0]["responses"]) == 2
    assert rows[0]["id"] == 7
    assert set(report["by_file"]) == {"a.jsonl", "b.jsonl"}
    assert report["lower_perplexity_is_chosen"]["within_pairs"] is None


def test_the_picture_is_a_picture(alone, line):
    alone("rule=band", "lo=1", "hi=1e6")
    assert (line.folder / "out/filter/histogram.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_a_filter_that_keeps_nothing_goes_on_with_a_looser_rule(alone, line, refused, monkeypatch):
    """What the message says to do works: scores and own samples are kept, and the rows are those of a fresh folder."""
    (line.folder / "alone.yaml").write_text(FILTER)
    command = ["run", "alone.yaml", "--config", str(line.run_file), "--run_dir", "out"]
    said = refused(*command, "--stages.filter.q", "0.0")
    assert "the filter keeps none of 24 rows" in said
    assert "loosen the rule (own_quantile) with --stages.filter.q: in the same --run_dir what is scored" in said
    assert "--stages.filter.q or --stages.filter.pair_gap: " in refused(
        *command, "--stages.filter.q", "0.0", "--stages.filter.pair_gap", "0.5"
    )
    assert "samples: 2 there, 3 here" in refused(*command, "--stages.filter.samples", "3")
    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "loaded", lambda *args: pytest.fail("scored or drawn again"))
        report, rows = alone("q=1.0")
    record = json.loads((line.folder / "out/filter/stage.json").read_text())
    assert (record["state"], record["settings"]["q"], report["settings"]["q"]) == ("done", 1.0, 1.0)
    assert alone("q=1.0", folder="fresh") == (report, rows)
    assert rows
    assert "settings changed since this stage began" in refused(*command, "--stages.filter.q", "0.9")
    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "loaded", lambda *args: pytest.fail("scored or drawn again"))
        assert alone("q=1.0") == (report, rows)


def test_another_rule_may_take_over_a_filter_that_has_begun(alone, line, monkeypatch):
    alone("rule=absolute", "tau=1.000001", code=2)
    monkeypatch.setattr(Scorer, "loaded", lambda *args: pytest.fail("scored again"))
    report, rows = alone("rule=topk", "n=1", "length_buckets=[8]", "apply_to=any")
    assert report["settings"]["rule"] == "topk"
    assert len(rows) == report["rows"]["kept"] > 0


def test_a_z_score_takes_two_own_samples(alone, line, refused):
    """Where it can be known they are asked for at once, else when they are drawn."""
    (line.folder / "alone.yaml").write_text(FILTER)
    command = ["run", "alone.yaml", "--config", str(line.run_file), "--run_dir", "out"]
    z = ["--stages.filter.rule", "zscore", "--stages.filter.z", "50", "--stages.filter.samples", "1"]
    said = refused(*command, *z, "--stages.filter.own_prompts", "1")
    assert "samples: 1 for each of own_prompts: 1 prompts; rule zscore takes at least 2 own samples" in said
    assert not (line.folder / "out").exists()
    write_rows(line.folder / "one.jsonl", [{"prompt": "Q", "chosen": "hello there", "rejected": "no"}])
    said = refused(*command, *z, "--data.train", "one.jsonl")
    assert "rule: zscore takes at least 2 own samples, and there are 1 in all; use a rule" in said
    report, rows = alone("data.train=one.jsonl", "samples=1", "rule=own_quantile", "q=1.0", "apply_to=any")
    assert report["own_samples"]["samples"] == len(rows) == 1  # the other rule goes on in the same folder


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--data.train", "none.jsonl"], "none.jsonl: no such file; did you mean"),
        (["--policy.path", "nowhere"], "policy.path: no folder nowhere"),
        (["--stages.filter.max_new_tokens", "600"], "max_new_tokens: 600 leaves no room for any prompt"),
        (["--stages.filter.sources", "[validation.jsonl, x.jsonl]"], "x.jsonl: no such file"),
    ],
)
def test_bad_input(line, refused, options, said):
    (line.folder / "alone.yaml").write_text(FILTER)
    said_now = refused("run", "alone.yaml", "--config", str(line.run_file), "--run_dir", "out", *options)
    assert said in said_now


def test_weights_that_are_broken_are_named(line, refused, tiny):
    from safetensors.torch import load_file, save_file

    broken = line.folder / "broken"
    broken.mkdir()
    for file in tiny.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    weights = load_file(broken / "model.safetensors")
    weights["model.norm.weight"][:] = math.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    (line.folder / "alone.yaml").write_text(FILTER)
    command = ["run", "alone.yaml", "--config", str(line.run_file), "--run_dir", "out", "--policy.path", "broken"]
    said = refused(*command, "--engine", "dense")
    assert "train.jsonl:1: the model's log-prob is nan" in said


def test_the_filter_off_is_plain_dpo_bit_for_bit(line, same_process):
    """A filter that keeps all rows changes nothing in the training that follows."""
    out = line.run("--stages.filter.rule", "absolute", "--stages.filter.tau", "1e9", "--stages.filter.q", "none")
    config = yaml.safe_load(line.run_file.read_text())
    del config["stages"]
    line.run_file.write_text(yaml.safe_dump(config))
    plain = line.fit(run="plain")
    name = "export/model.safetensors"
    assert (out / "dpo" / "run" / name).read_bytes() == (plain / name).read_bytes()


def test_tokens_and_template_are_those_of_the_run(line, refused, tiny):
    """A model without a chat template is refused, and `data.template: plain` scores the texts as they are."""
    (line.folder / "alone.yaml").write_text(FILTER)
    bare = line.folder / "bare"
    bare.mkdir()
    for file in tiny.iterdir():
        if file.name != "chat_template.jinja":
            (bare / file.name).write_bytes(file.read_bytes())
    settings = json.loads((bare / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (bare / "tokenizer_config.json").write_text(json.dumps(settings))
    command = ["run", "alone.yaml", "--config", str(line.run_file), "--run_dir", "out", "--policy.path", "bare"]
    assert "chat template" in refused(*command)
    assert main([*command, "--data.template", "plain", "--stages.filter.rule=absolute", "--stages.filter.tau=1e9"]) == 0
    scores = json.loads((line.folder / "out/filter/scores.jsonl").read_text().splitlines()[0])
    row = json.loads((line.folder / "train.jsonl").read_text().splitlines()[0])
    assert scores["answers"][0]["tokens"] == len(row["chosen"]) + 1  # a byte each, and EOS
