from __future__ import annotations

import pytest
from lightning.pytorch import Trainer

from nashtune.comparison.plan import make_entries
from nashtune.errors import InputError
from nashtune.interfaces import TokenBatch
from nashtune.training.micro_batch import Passes


def test_one_spec_that_is_wrong_and_nothing_is_trained(ask, pit):
    """Findings of all specs come together, each with the specs that it is about."""
    (pit.folder / "broken.yaml").write_text("base: online_dpo\nschedule: {rounds: 9}\n")
    with pytest.raises(InputError) as caught:
        make_entries(ask("dpo", "broken.yaml", "--data.validation", "nowhere.jsonl"))
    lines = caught.value.lines
    assert any(line.startswith("broken: data.train: 8 prompts cannot be split over 9 rounds") for line in lines)
    assert sum("nowhere.jsonl" in line for line in lines) == 1
    assert not any(line.startswith("dpo, broken") for line in lines)


def test_held_out_prompts_are_needed(ask):
    with pytest.raises(InputError, match=r"data\.validation is missing; the policies are compared by their answers"):
        make_entries(ask("dpo", "--data.validation", "null"))


def test_a_warm_up_that_is_never_over_is_refused(ask):
    """Of an offline run, of each update of a game; without a budget a note says so."""
    with pytest.raises(InputError) as caught:
        make_entries(ask("dpo", "simpo", "--steps", "24", "--spec.optimizer.warmup", "150"))
    assert caught.value.lines == [
        "optimizer.warmup: 150 steps of warm-up in a training of 24: the learning rate never reaches its peak of 0.01; "
        "give all specs the same share of their run with --spec.optimizer.warmup 0.1, or a larger budget"
    ]
    make_entries(ask("dpo", "simpo", "--steps", "24", "--spec.optimizer.warmup", "0.1"))
    game = ("online_dpo", "--steps", "24", "--spec.schedule.rounds", "2")
    with pytest.raises(InputError, match="150 steps of warm-up in updates of 2"):
        make_entries(ask(*game, "--spec.optimizer.warmup", "150"))
    (own,) = make_entries(ask("dpo", "--spec.optimizer.warmup", "150"))
    assert any(note.startswith("warm-up of 150 steps in a run of 4") for note in own.notes)


def test_rows_that_are_too_long_are_found_before_anything_is_trained(ask, pit):
    """Each kind of rows on its own: a game's prompts, pairs, examples."""
    for name, spec in (("pairs", "dpo"), ("examples", "kto"), ("prompts", "online_dpo")):
        with pytest.raises(InputError, match=r"longer than|max_length"):
            make_entries(ask(spec, "--data.max_length", "20" if name == "prompts" else "40"))


def test_generations_of_reinforcement_learning_are_rounds(ask):
    """A round draws 2 prompts times 2 completions: 14 generations are 3 rounds of 1 step."""
    rl = ("--spec.schedule.steps", "4", "--data.prompts_per_round", "2", "--data.batch_size", "4")
    (entry,) = make_entries(ask("rloo", "--generations", "14", *rl))
    assert entry.config["data"]["prompts_per_round"] == 2
    assert entry.config["trainer"]["max_steps"] == 3
    assert entry.notes == ("rloo: 3 of 4 rounds, 12 of 14 generations",)
    with pytest.raises(InputError, match="--generations 3: a round draws 4"):
        make_entries(ask("rloo", "--generations", "3", *rl))


def test_steps_are_the_same_for_all(ask):
    dpo, game = make_entries(ask("dpo", "online_dpo", "--steps", "30"))
    assert (dpo.config["trainer"]["max_steps"], dpo.config["trainer"]["max_epochs"]) == (30, -1)
    assert (game.config["trainer"]["max_steps"], game.config["trainer"]["max_epochs"]) == (30, 1)
    assert dpo.notes == ("trainer.max_epochs is not followed by dpo: --steps says how long it trains",)
    assert game.notes == ("online_dpo has at most 5 steps in its rounds and cannot spend 30",)
    assert "seed_everything" not in dpo.config


def test_generations_set_the_prompts_of_a_round(ask):
    """3 rounds of n prompts with 2 completions each are 6 n generations."""
    dpo, game = make_entries(ask("dpo", "online_dpo", "--generations", "14", "--data.prompts_per_round", "8"))
    assert game.config["data"]["prompts_per_round"] == 2
    assert game.notes == ("online_dpo: 2 prompts a round, 12 of 14 generations",)
    assert "prompts_per_round" not in dpo.config["data"]
    assert any("dpo draws no completions and cannot spend generations" in note for note in dpo.notes)
    with pytest.raises(InputError, match="--generations 5: with one prompt in each round the method draws 6"):
        make_entries(ask("online_dpo", "--generations", "5"))


@pytest.mark.parametrize("spec", ["dpo", "kto"])
def test_tokens_become_steps_by_what_a_step_trains_on(ask, pit, monkeypatch, spec):
    """An epoch's tokens, counted while it is trained, as a budget: the run is laid out for one epoch."""
    seen = []
    counted = Passes._counted

    def count(passes: Passes, batch: TokenBatch, trainer: Trainer) -> TokenBatch:
        found = counted(passes, batch, trainer)
        if trainer.training:
            own = slice(len(found)) if found.kind == "examples" else slice(None)  # the others carry no gradient
            seen.append(int(found.attention_mask[own].sum()))
        return found

    monkeypatch.setattr(Passes, "_counted", count)
    pit.fit("--trainer.limit_val_batches", "0", "--spec.oracle=none", "--spec.sampler=none", spec=spec)
    (entry,) = make_entries(ask(spec, "--tokens", str(sum(seen))))
    batches = len(seen)
    assert abs(entry.config["trainer"]["max_steps"] - batches) <= (1 if spec == "kto" else 0)
    (entry,) = make_entries(ask(spec, "--tokens", str(3 * sum(seen))))
    assert abs(entry.config["trainer"]["max_steps"] - 3 * batches) <= (2 if spec == "kto" else 0)
    assert entry.config["trainer"]["callbacks"][-1]["init_args"]["tokens"] == 3 * sum(seen)
