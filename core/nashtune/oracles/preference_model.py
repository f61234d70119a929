"""Preference model: a causal LM that reads both answers and says which is better.

Legend: N = comparisons, M = distinct questions, T = tokens, V = vocabulary.
"""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jsonargparse.typing import PositiveInt
from torch import Tensor

from nashtune.data.budget import budget_batches, padded
from nashtune.data.comparisons import PLACES, Questions
from nashtune.data.messages import RowError
from nashtune.data.texts import check_lengths, check_template
from nashtune.errors import InputError
from nashtune.interfaces.oracle import PreferenceOracle, Prompt
from nashtune.models.loading import load_model
from nashtune.models.locate import ModelFolder, resolve_export
from nashtune.models.mode import frozen_mode
from nashtune.models.preference_file import PreferenceFile, read_preference_file
from nashtune.models.preflight import check_folder, has_chat_template, load_tokenizer
from nashtune.oracles.frozen import Device, pick_device
from nashtune.oracles.probability import both_orders

OPTION = "oracle.path"


class PreferenceModelOracle(PreferenceOracle):
    """P(y > y') from the next-token probabilities of two answer tokens, averaged over both orders of the answers.

    Dong et al., "RLHF Workflow: From Reward Modeling to Online RLHF", arXiv:2405.07863 (pairwise preference
    model).

    Args:
        path: Folder of a Hugging Face causal LM, or of a LoRA adapter for one (merged on loading); `hub:owner/name` and
            `demo:smollm2` work too, and a run folder stands for its export.
        prompt_template: The question, with {prompt}, {first} and {second}; a prompt of several messages is written
            with `role:` before each turn. None: what the folder of a model that nashtune trained says, else that of
            RLHFlow's pair-preference-model.
        tokens: What the model answers where the first answer is better and where the second is; one token each. None:
            what the folder says, else A and B.
        template: `chat`: the question is a message of the user, and the answer token is the first of the assistant's
            turn; `plain`: the token after the question. None: what the folder says, else `chat`.
        batch_tokens: Tokens of a forward pass, padding included.
        precision: Of the weights, fp32 or bf16.
        device: `auto` is a GPU where there is one.
    """

    placement: ClassVar[tuple[str, ...]] = ("batch_tokens", "device")

    def __init__(
        self,
        *,
        path: str,
        prompt_template: str | None = None,
        tokens: tuple[str, str] | None = None,
        template: Literal["chat", "plain"] | None = None,
        batch_tokens: PositiveInt = 8192,
        precision: Literal["fp32", "bf16"] = "fp32",
        device: Device = "auto",
    ) -> None:
        if prompt_template is not None:
            check_template(prompt_template, PLACES, "oracle.prompt_template")
        self.path = path
        self.prompt_template = prompt_template
        self.tokens = tokens
        self.template = template
        self.batch_tokens = batch_tokens
        self.precision = precision
        self.device = device
        self._folder: ModelFolder | None = None
        self._trained = PreferenceFile()
        self._encoder: Questions | None = None
        self._model: Any = None
        self._counts: Counter[str] = Counter()

    def prepare(self) -> None:
        """Looks at folder, tokenizer, template, answer tokens and device; the first comparison loads the weights.

        Raises:
            InputError: one of them does not fit.
        """
        path = str(resolve_export(self.path, OPTION))
        self._folder = check_folder(path, chat=False, option=OPTION)
        self._trained = read_preference_file(self._folder.path, OPTION) or PreferenceFile()
        template = self.template or self._trained.template
        pick_device(self.device)
        if template == "chat" and not has_chat_template(self._folder.tokenizer):
            raise InputError(
                f"oracle.template: chat, but the tokenizer of {self.path} has no chat template; set oracle.template: "
                "plain, or add chat_template.jinja to the folder"
            )
        self._encoder = Questions(
            load_tokenizer(path, OPTION),
            template,
            question=self.prompt_template or self._trained.question,
            answers=tuple(self.tokens or self._trained.answers),
            option="oracle.tokens",
        )

    def counts(self) -> Mapping[str, int]:
        """Comparisons, and those whose two orders name different winners: there the position decides.

        Of a model that nashtune trained also the questions, both orders counted, that are longer than any in training.
        """
        return dict(self._counts)

    def compare(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """P(first > second) (N,), float64; swapping the two gives exactly one minus it.

        Raises:
            InputError: the model cannot be loaded, the chat template refuses a question, or an input is longer than the
                model has positions for.
        """
        n = check_lengths(prompts, first, second)
        if n == 0:
            return torch.zeros(0, dtype=torch.float64)
        sides = zip([*prompts, *prompts], [*first, *second], [*second, *first], strict=True)
        numbers: dict[tuple[int, ...], int] = {}
        where = [numbers.setdefault(tuple(ids), len(numbers)) for ids in self._questions(list(sides))]
        says_first_M = self._ask(list(numbers))
        forward_N, backward_N = says_first_M[where[:n]], says_first_M[where[n:]]
        self._counts["comparisons"] += n
        self._counts["position_decides"] += int(((forward_N - 0.5) * (backward_N - 0.5) > 0).sum())
        return both_orders(forward_N, backward_N)

    def _questions(self, sides: Sequence[tuple[Prompt, str, str]]) -> list[list[int]]:
        """Token ids of the questions, each up to where the answer token stands."""
        try:
            return self._prepared().encode(sides)
        except RowError as error:
            raise InputError(f"oracle: {self.path}: {error}") from error

    def _ask(self, questions: Sequence[tuple[int, ...]]) -> Tensor:
        """Probability of the first answer token against the second (M,)."""
        model = self._loaded()
        places = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        longest = max(map(len, questions))
        if places is not None and longest > places:
            raise InputError(
                f"oracle: a question of {longest} tokens, and {self.path} has {places} positions; lower "
                "sampler.max_new_tokens, or use a model that reads more"
            )
        if self._trained.max_length is not None:  # of a question with the answer token behind it
            self._counts["longer_than_trained"] += sum(len(ids) >= self._trained.max_length for ids in questions)
        kept = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
        device, answers = next(model.parameters()).device, list(self._prepared().answers)
        says_first_M = torch.empty(len(questions), dtype=torch.float64)
        with frozen_mode(model):
            for batch in budget_batches(questions, self.batch_tokens):
                ids_NT, mask_NT = padded([questions[i] for i in batch], 0, "left")
                positions_NT = (mask_NT.cumsum(-1) - 1).clamp_min(0)
                logits_NTV = model(
                    input_ids=ids_NT.to(device),
                    attention_mask=mask_NT.to(device),
                    position_ids=positions_NT.to(device),
                    **kept,
                ).logits
                two_N2 = logits_NTV[:, -1, answers].double().cpu()
                says_first_M[batch] = torch.sigmoid(two_N2[:, 0] - two_N2[:, 1])
        return says_first_M

    def _prepared(self) -> Questions:
        if self._encoder is None:
            self.prepare()
        assert self._encoder is not None
        return self._encoder

    def _loaded(self) -> Any:
        if self._model is None:
            assert self._folder is not None
            loaded = load_model(
                self._folder, precision=self.precision, attention="sdpa", adapter="merge", option=OPTION
            )
            self._model = loaded.model.requires_grad_(False).to(pick_device(self.device))
        return self._model
