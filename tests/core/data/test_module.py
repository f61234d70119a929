from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer

from nashtune.data.module import PreferenceData
from nashtune.errors import InputError


def bind(
    data: PreferenceData, tokenizer: Any, rows: Any = "pairs", uses_p_chosen: bool = True, **more: Any
) -> PreferenceData:
    data.bind(tokenizer=tokenizer, rows=rows, uses_p_chosen=uses_p_chosen, seed=0, **more)
    return data


def test_soft_labels_for_a_loss_that_reads_none(pairs, tokenizer) -> None:
    with pytest.raises(InputError, match=r"data\.labels: soft, but the spec's loss does not read p_chosen"):
        bind(PreferenceData(pairs(3), labels="soft"), tokenizer, uses_p_chosen=False)


@pytest.mark.parametrize("name", ["batch_size", "eval_batch_size"])
def test_a_batch_of_one_example(pairs, tokenizer, name) -> None:
    data = PreferenceData(pairs(3), **{"batch_size": 2, name: 1})
    with pytest.raises(InputError, match=rf"data\.{name}: 1, but the spec's loss compares each example"):
        bind(data, tokenizer, "examples")
    bind(data, tokenizer, "pairs")


def test_single_examples_are_compared_within_one_pass(pairs, tokenizer) -> None:
    data = PreferenceData(pairs(3), batch_tokens=64)
    assert data.batch_tokens == 64
    with pytest.raises(InputError, match=r"data\.batch_tokens: 64 would split a micro-batch into several passes"):
        bind(data, tokenizer, "examples", compares_rows=True)
    bind(data, tokenizer, "pairs")
    assert PreferenceData().batch_tokens is None


def test_no_chat_template_is_known_before_data_are_read(tokenizer) -> None:
    tokenizer.chat_template = None
    with pytest.raises(InputError, match="no chat template"):
        bind(PreferenceData("missing.jsonl"), tokenizer)


@pytest.mark.parametrize(
    ("given", "stage", "read"),
    [
        ({"train"}, "fit", {"train"}),
        ({"train", "validation", "test"}, "fit", {"train", "validation"}),
        ({"train", "validation"}, "validate", {"validation"}),
        ({"test"}, "test", {"test"}),
        ({"validation", "test"}, "predict", {"test"}),
        ({"validation"}, "predict", {"validation"}),
    ],
)
def test_a_stage_reads_its_splits(pairs, tokenizer, given, stage, read) -> None:
    data = bind(PreferenceData(**dict.fromkeys(given, pairs(3))), tokenizer)
    data.setup(stage)
    assert data.reports.keys() == read


@pytest.mark.parametrize(("stage", "wanted"), [("fit", "train"), ("validate", "validation"), ("test", "test")])
def test_a_missing_split(pairs, tokenizer, stage, wanted) -> None:
    others = {"train", "validation", "test"} - {wanted}
    data = bind(PreferenceData(**dict.fromkeys(others, pairs(3))), tokenizer)
    with pytest.raises(
        InputError, match=rf"data\.{wanted}: missing, and `nashtune {stage}` needs it \(given: .*--data\."
    ):
        data.setup(stage)
    with pytest.raises(InputError, match=r"data\.validation: missing, and `nashtune predict` needs it; give"):
        bind(PreferenceData(), tokenizer).setup("predict")


def test_splits_are_read_once(pairs, tokenizer, tmp_path) -> None:
    path = pairs(3)
    data = bind(PreferenceData(path), tokenizer)
    data.setup("fit")
    (tmp_path / "rows.jsonl").unlink()
    data.setup("fit")
    assert data.reports["train"].used == 3
    bind(data, tokenizer)  # bound again: read again
    with pytest.raises(InputError, match="no such file"):
        data.setup("fit")


def test_limit_where_and_fingerprint(pairs, tokenizer) -> None:
    path = pairs(5)
    data = bind(PreferenceData(path, limit=2), tokenizer)
    data.setup("fit")
    assert data.reports["train"].used == 2
    assert data.where("train", 1) == f"{path}:2"
    assert data.fingerprint("train") == data.reports["train"].fingerprint


def test_sample_prompts(pairs, write, tokenizer) -> None:
    rows = [{"prompt": p, "chosen": "a", "rejected": "b"} for p in ("x", "x", "y", "z")]
    held_out = write(rows, "held_out.jsonl")
    data = bind(PreferenceData(pairs(2), held_out), tokenizer)
    data.setup("fit")
    prompts = data.sample_prompts(2)
    assert [text for text, _ in prompts] == ["x", "y"]
    assert tokenizer.decode(prompts[0][1]) == "<|user|>x<|assistant|>"
    alone = bind(PreferenceData(pairs(2)), tokenizer)
    alone.setup("fit")
    assert alone.sample_prompts(2) == []


@pytest.mark.parametrize(
    ("size", "batch_size", "accumulate", "windows"),
    [
        (10, 2, 1, [2, 2, 2, 2, 2]),
        (11, 2, 1, [2, 2, 2, 2, 2, 1]),
        (11, 2, 2, [4, 4, 4, 4, 3, 3]),
        (11, 2, 4, [8, 8, 8, 8, 3, 3]),
        (3, 4, 2, [3]),
    ],
)
def test_window_size(pairs, tokenizer, size, batch_size, accumulate, windows) -> None:
    data = bind(PreferenceData(pairs(size), batch_size=batch_size), tokenizer)
    data.setup("fit")
    assert [data.window_size(i, accumulate) for i in range(len(windows))] == windows
    assert data.steps_per_epoch(accumulate, 1) == -(-len(windows) // accumulate)


class Recorder(LightningModule):
    """Remembers the rows it sees, and trains a number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list[list[int]]] = {"fit": [], "validate": [], "test": [], "predict": []}
        self.windows: list[int] = []

    def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
        self.seen["fit"].append(batch.rows.tolist())
        data: Any = self.trainer
        self.windows.append(data.datamodule.window_size(batch_idx, self.trainer.accumulate_grad_batches))
        return self.weight * 1.0

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["validate"].append(batch.rows.tolist())

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.seen["test"].append(batch.rows.tolist())

    def predict_step(self, batch: Any, batch_idx: int) -> Any:
        self.seen["predict"].append(batch.rows.tolist())
        return batch.rows.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def trainer(**options: Any) -> Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
    }
    return Trainer(accelerator="cpu", **{"max_epochs": 1, **quiet, **options})


def test_every_command_runs(pairs, tokenizer) -> None:
    path = pairs(5)
    data = bind(PreferenceData(path, path, path, batch_size=2, eval_batch_size=3), tokenizer)
    model, run = Recorder(), trainer(num_sanity_val_steps=0)
    run.fit(model, datamodule=data)
    assert sorted(chain(*model.seen["fit"])) == [0, 1, 2, 3, 4]
    assert model.seen["validate"] == [[0, 1, 2], [3, 4]]
    run.test(model, datamodule=data, verbose=False)
    assert model.seen["test"] == [[0, 1, 2], [3, 4]]
    assert run.predict(model, datamodule=data) == [[0, 1, 2], [3, 4]]


def test_training_without_validation_rows(pairs, tokenizer) -> None:
    model = Recorder()
    trainer().fit(model, datamodule=bind(PreferenceData(pairs(3), batch_size=2), tokenizer))
    assert [len(batch) for batch in model.seen["fit"]] == [2, 1]


@pytest.mark.parametrize("limit", [3, 0.5])
def test_limit_train_batches_counts_in_windows_and_steps(pairs, tokenizer, limit) -> None:
    """Three of six micro-batches, two to a step: Lightning steps on the last one, alone in its window."""
    data = bind(PreferenceData(pairs(12), batch_size=2), tokenizer)
    model, run = Recorder(), trainer(limit_train_batches=limit, accumulate_grad_batches=2, max_epochs=2)
    run.fit(model, datamodule=data)
    assert model.windows == [4, 4, 2] * 2
    assert run.global_step == 2 * data.steps_per_epoch(2, 1) == 4


def test_overfit_batches_repeats_the_same_rows(pairs, tokenizer) -> None:
    data = bind(PreferenceData(pairs(12), batch_size=2), tokenizer)
    model, run = Recorder(), trainer(overfit_batches=2, max_epochs=2)
    run.fit(model, datamodule=data)
    assert model.seen["fit"] == [[0, 1], [2, 3]] * 2


def test_loading_draws_nothing_from_the_global_generator(pairs, tokenizer) -> None:
    data = bind(PreferenceData(pairs(6), pairs(6), batch_size=2), tokenizer)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    trainer().fit(Recorder(), datamodule=data)
    assert torch.equal(torch.get_rng_state(), before)


def test_every_row_in_order_for_what_is_computed_once(pairs, tokenizer) -> None:
    data = bind(PreferenceData(pairs(5), batch_size=2, eval_batch_size=3), tokenizer)
    data.setup("fit")
    assert [batch.rows.tolist() for batch in data.every_row("train")] == [[0, 1, 2], [3, 4]]
    bind(data, tokenizer, "examples")
    data.setup("fit")
    assert [len(batch) for batch in data.every_row("train")] == [3, 3, 4]


def test_examples_reach_the_model_with_labels_and_company(pairs, tokenizer) -> None:
    """Five pairs are ten examples: with a batch of three the last one joins the batch before."""
    seen: list[Any] = []

    class Examples(Recorder):
        def training_step(self, batch: Any, batch_idx: int) -> torch.Tensor:
            seen.append(batch)
            return super().training_step(batch, batch_idx)

    data = bind(PreferenceData(pairs(5), batch_size=3), tokenizer, "examples")
    trainer().fit(Examples(), datamodule=data)
    assert [len(batch) for batch in seen] == [3, 3, 4]
    assert [batch.input_ids.shape[0] for batch in seen] == [6, 6, 8]
    assert sum(int(batch.desirable.sum()) for batch in seen) == 5


def test_a_row_beyond_the_models_context_is_refused_whatever_happens_to_long_rows(write, tokenizer) -> None:
    """Prompts of 22 and 30 tokens, template included; completions of 2 and 3 with EOS."""
    rows = [{"prompt": "p" * n, "chosen": "a", "rejected": "bb"} for n in (20, 28)]
    path = write(rows)

    def read(context: int | None, **options: Any) -> PreferenceData:
        data = PreferenceData(path, **options)
        data.bind(tokenizer=tokenizer, rows="pairs", uses_p_chosen=True, seed=0, context=context)
        data.setup("fit")
        return data

    for overflow in ("error", "drop", "truncate_prompt"):
        with pytest.raises(
            InputError,
            match=r"rows\.jsonl:2: 30 prompt and 3 completion tokens are more than the model's context of 32 tokens .*"
            r"data\.max_length is 1024, set it to 32 or less",
        ):
            read(32, overflow=overflow)
    assert read(33).reports["train"].used == 2
    assert read(None).reports["train"].used == 2
    assert read(32, max_length=32, overflow="drop").reports["train"].used == 1


def test_mismatched_examples_stay_within_the_models_context(write, tokenizer) -> None:
    rows = [
        {"prompt": "p" * 28, "completion": "a", "label": True},
        {"prompt": "p", "completion": "b" * 28, "label": False},
    ]
    data = PreferenceData(write(rows), batch_size=2)
    data.bind(tokenizer=tokenizer, rows="examples", uses_p_chosen=False, seed=0, context=40)
    data.setup("fit")
    assert any("may lose its beginning" in note for note in data.reports["train"].notes)
    (batch,) = data.every_row("train")
    assert batch.input_ids.shape[1] == 40


def game(data: PreferenceData, tokenizer: Any, room: int = 8, context: int | None = 512) -> PreferenceData:
    data.bind(tokenizer=tokenizer, rows="prompts", uses_p_chosen=True, seed=0, completion_room=room, context=context)
    return data


def test_a_game_reads_prompts(pairs, write, tokenizer) -> None:
    path, held_out = pairs(4), write([{"prompt": p} for p in ("x", "x", "y")], "held_out.jsonl")
    data = game(PreferenceData(path, held_out), tokenizer)
    data.setup("fit")
    assert [row.prompt for row in data.prompts("train")] == ["p0", "p1", "p2", "p3"]
    assert [row.prompt for row in data.prompts("validation")] == ["x", "y"]
    assert data.reports["train"].kind == "prompts"
    assert data.fingerprint("train") == data.reports["train"].fingerprint
    assert data.where("train", 2) == f"{path}:3"
    assert [text for text, _ in data.sample_prompts(5)] == ["x", "y"]
    assert data.state_dict()["fingerprints"].keys() == {"train", "validation"}
    alone = game(PreferenceData(path), tokenizer)
    alone.setup("fit")
    assert alone.sample_prompts(2) == []


def test_prompts_are_read_once_and_again_when_bound_again(pairs, tokenizer, tmp_path) -> None:
    data = game(PreferenceData(pairs(3)), tokenizer)
    data.setup("fit")
    (tmp_path / "rows.jsonl").unlink()
    data.setup("fit")
    assert len(data.prompts("train")) == 3
    with pytest.raises(InputError, match="no such file"):
        game(data, tokenizer).setup("fit")


def test_a_game_leaves_room_for_completions(pairs, tokenizer) -> None:
    """`<|user|>p0<|assistant|>` has 4 tokens."""
    game(PreferenceData(pairs(2), max_length=12), tokenizer).setup("fit")
    with pytest.raises(InputError, match=r"4 prompt and 9 completion tokens \(sampler\.max_new_tokens\)"):
        game(PreferenceData(pairs(2), max_length=12), tokenizer, room=9).setup("fit")


@pytest.mark.parametrize(
    ("options", "room", "said"),
    [
        ({"ranked_pairs": "adjacent"}, 8, r"data\.ranked_pairs: adjacent pairs the answers of the rows"),
        ({"max_length": 8}, 8, r"data\.max_length: 8 leaves no token for a prompt, .* draws up to 8"),
        ({}, 512, r"sampler\.max_new_tokens: 512 leaves no token for a prompt in the model's context of 512 tokens"),
    ],
)
def test_settings_that_a_game_cannot_serve(pairs, tokenizer, options, room, said) -> None:
    with pytest.raises(InputError, match=said):
        game(PreferenceData(pairs(3), **options), tokenizer, room=room)


def test_soft_labels_of_a_game_are_the_oracles_and_the_loss_must_read_them(pairs, tokenizer) -> None:
    data = game(PreferenceData(pairs(3), labels="soft"), tokenizer)
    data.setup("fit")
    assert len(data.prompts("train")) == 3  # rows without p_chosen
    with pytest.raises(InputError, match=r"data\.labels: soft, but the spec's loss does not read p_chosen"):
        data.bind(tokenizer=tokenizer, rows="prompts", uses_p_chosen=False, seed=0)


def test_prompts_per_round_is_for_games(pairs, tokenizer) -> None:
    data = PreferenceData(pairs(3), prompts_per_round=2)
    with pytest.raises(InputError, match=r"data\.prompts_per_round: 2, but the spec's schedule draws no completions"):
        bind(data, tokenizer)
    assert game(data, tokenizer).prompts_per_round == 2
