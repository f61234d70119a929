"""Sampler `recorded`: completions from a file or from the journal of a run, instead of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from jsonargparse.typing import PositiveInt

from nashtune.errors import InputError
from nashtune.interfaces.sampler import Completion, Sampler, Surroundings
from nashtune.interfaces.schedule import Role
from nashtune.models.policy import HFPolicy
from nashtune.samplers.batching import numbers_of
from nashtune.samplers.recorded_file import FileSource
from nashtune.samplers.recorded_journal import JournalSource
from nashtune.samplers.stops import eos_tokens

if TYPE_CHECKING:
    from nashtune.interfaces.oracle import Judgement, Scored


class RecordedSampler(Sampler):
    """Hands out what was drawn before, token by token as it was: nothing is tokenised and no random number is drawn.

    From a journal come the completions of the same round, prompts and role, with their log-probs and the version of the
    weights that drew them, and the judgements too; so a run is replayed without a model decoding and without an oracle.

    A file has one completion a row (.jsonl, .jsonl.gz or .parquet): `token_ids`, and `prompt_ids` (token ids of the
    prompt) or `prompt` (its number in the run's prompts, from 0) or both; if wanted `round` (without it a row serves
    every round), `k` (without it rows count in their order), `token_logp`, `kept_mass`, `finish` ("stop" or "length";
    without it, whether the last token is an EOS), `version`, and `text`, which is for people and not read.

    Args:
        path: The file; or the folder of a run, or its journal.
        completions: Completions of each prompt and round; of more that were recorded, those with the lowest k.
        max_new_tokens: Longest completion in tokens, EOS included. Prompts are cut to leave room for it, so a replay
            needs that of the recorded run; a recorded completion that is longer is refused.
    """

    replays: ClassVar[bool] = True

    def __init__(self, *, path: str, completions: PositiveInt = 8, max_new_tokens: PositiveInt = 256) -> None:
        self.path = path
        self.completions = int(completions)
        self.max_new_tokens = int(max_new_tokens)
        self._role: Role = "policy"
        self._source: FileSource | JournalSource | None = None

    def attach(self, surroundings: Surroundings) -> None:
        """Opens the source; a file is read whole.

        Raises:
            InputError: it cannot be read, or a row is not what the format says.
        """
        folder = Path(self.path).expanduser()
        if folder.is_dir():
            self._source = JournalSource(folder)
            return
        policy = surroundings.policy
        if not isinstance(policy, HFPolicy):
            raise TypeError(f"recorded completions are token ids of a language model, not of {type(policy).__name__}")
        model = policy.loaded()
        vocabulary = int(model.get_input_embeddings().weight.shape[0])
        self._source = FileSource(self.path, eos_tokens(model, surroundings.tokenizer), vocabulary)

    def sync(self, version: str, role: Role = "policy") -> None:
        """Remembers whose completions come next; a journal keeps those of policy and opponent apart."""
        self._role = role

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        n: int,
        *,
        seed: int,
        round: int = 0,
        indices: Sequence[int] | None = None,
        reference_weight: float | None = None,
    ) -> list[Completion]:
        """`n` recorded completions of each prompt, ordered by prompt and k.

        `seed` and `reference_weight` are without effect: how the completions were drawn is over.

        Args:
            prompts: Token ids.
            n: Completions of each.
            seed: Not used.
            round: Of the schedule, from 1.
            indices: Numbers of the prompts in the whole prompt set.
            reference_weight: Not used.

        Raises:
            InputError: the round, a prompt or some of its completions were not recorded, a prompt is another, or a
                completion is too long.
        """
        numbers = numbers_of(prompts, indices)
        source = self._opened()
        found: list[Completion] = []
        for i, (number, prompt) in enumerate(zip(numbers, prompts, strict=True)):
            group = source.find(round, self._role, number, prompt)
            if missing := [k for k in range(n) if k not in group]:
                raise InputError(
                    f"{self.path}: prompt {number} of round {round} has completions k={sorted(group)}, and k={missing} "
                    f"of {n} are missing; lower spec.sampler.completions or record more"
                )
            if long := [k for k in range(n) if len(group[k].token_ids) > self.max_new_tokens]:
                raise InputError(
                    f"{self.path}: completion k={long[0]} of prompt {number} in round {round} has "
                    f"{len(group[long[0]].token_ids)} tokens; raise spec.sampler.max_new_tokens={self.max_new_tokens}"
                )
            found.extend(replace(group[k], prompt=i, k=k) for k in range(n))
        return found

    def judgements(self, round: int, part: int) -> list[Judgement] | None:
        """What the journal says of a part of the round's completions.

        Returns:
            None where the source is a file, or the journal has no judgements of that part: an oracle must judge.
        """
        source = self._opened()
        return source.judgements(round, part) if isinstance(source, JournalSource) else None

    def scores(self, round: int, part: int) -> list[Scored] | None:
        """As `judgements`, of a run that was trained on rewards."""
        source = self._opened()
        return source.scores(round, part) if isinstance(source, JournalSource) else None

    def _opened(self) -> FileSource | JournalSource:
        if self._source is None:
            raise RuntimeError("call attach(surroundings) before sample()")
        return self._source
