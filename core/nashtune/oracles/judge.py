"""Judge: a language model behind an OpenAI-compatible endpoint says which of two answers is better."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Event
from typing import Any, ClassVar, Literal

import torch
from jsonargparse.typing import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor

from nashtune.cache import cache_root
from nashtune.data.texts import check_lengths, check_template, fill, text_of
from nashtune.errors import InputError
from nashtune.interfaces.oracle import PreferenceOracle, Prompt
from nashtune.oracles.judge_cache import JudgeCache
from nashtune.oracles.judge_client import ChatClient, NoAnswer
from nashtune.oracles.judge_pool import in_parallel
from nashtune.oracles.judge_verdict import QUESTION, REMINDER, VERDICT, verdict_reader
from nashtune.oracles.probability import both_orders

PLACES = ("prompt", "first", "second")
OWN_FIELDS = ("model", "messages", "temperature", "max_tokens", "n", "stream")  # of a request
VALUES = {1: 1.0, 0: 0.5, -1: 0.0, None: float("nan")}


class JudgeOracle(PreferenceOracle):
    """P(y > y') from the verdicts of a chat model, the mean over both orders of the answers.

    A win counts 1 and a tie 1/2, so P is 0, 1/4, 1/2, 3/4 or 1.

    Args:
        url: Address of the endpoint, as OpenAI's clients take it: http://localhost:8000/v1.
        model: Name of the model there.
        prompt_template: The question, with {prompt}, {first} and {second}; a prompt of several messages is written
            with `role:` before each turn.
        verdict: Regular expression with one group that finds the verdict in the answer. It counts when every match in
            the answer says the same.
        verdicts: What the group holds for "the first is better", "the second is better" and "a tie".
        reminder: What is said after an answer without a verdict, when it is asked for again.
        asks: How often one verdict is asked for, at most.
        on_parse_failure: What happens when none came: `error` stops the run with everything kept; `drop` gives no
            probability (NaN), and the comparison is left out and counted.
        api_key_env: Name of the environment variable with the key, never the key. None sends none.
        temperature: Of the judge's sampling; None leaves it to the server.
        max_tokens: Of an answer; None leaves it to the server. A model that thinks before it answers needs thousands.
        extra: Further fields of the request, such as {chat_template_kwargs: {enable_thinking: false}}.
        timeout: Seconds until a request counts as lost.
        retries: Tries after a lost or refused request (timeout, 429, 5xx, no chat completion), with waits of 1, 2, 4,
            ... seconds, or as long as the server's Retry-After says, up to 120.
        max_parallel: Requests at the same time.
        cache: Folder for answers, by content. None: `judge` in nashtune's cache folder.
    """

    # The last two: a judge that has no verdict on one question must not end a run that is half done.
    placement: ClassVar[tuple[str, ...]] = (
        "url",
        "api_key_env",
        "timeout",
        "retries",
        "max_parallel",
        "cache",
        "asks",
        "on_parse_failure",
    )

    def __init__(
        self,
        *,
        url: str,
        model: str,
        prompt_template: str = QUESTION,
        verdict: str = VERDICT,
        verdicts: tuple[str, str, str] = ("A", "B", "tie"),
        reminder: str = REMINDER,
        asks: PositiveInt = 3,
        on_parse_failure: Literal["error", "drop"] = "error",
        api_key_env: str | None = None,
        temperature: NonNegativeFloat | None = 0.0,
        max_tokens: PositiveInt | None = 64,
        extra: dict[str, Any] | None = None,
        timeout: PositiveFloat = 120.0,
        retries: NonNegativeInt = 5,
        max_parallel: PositiveInt = 8,
        cache: str | None = None,
    ) -> None:
        check_template(prompt_template, PLACES, "oracle.prompt_template")
        self.prompt_template = prompt_template
        self.read = verdict_reader(verdict, verdicts)
        self.reminder = reminder
        self.asks = asks
        self.on_parse_failure = on_parse_failure
        self.max_parallel = max_parallel
        self.options = _options(temperature, max_tokens, extra or {})
        self.client = ChatClient(url, model, api_key_env, timeout, retries)
        self.cache = JudgeCache(Path(cache).expanduser() if cache else cache_root() / "judge")
        self._counts: Counter[str] = Counter()

    def prepare(self) -> None:
        """Sees that the endpoint answers, takes the key and has the model.

        It reads GET /models, and asks a short question where the model is not listed there.

        Raises:
            InputError: it does not.
        """
        self.client.check(self.options)

    def counts(self) -> Mapping[str, int]:
        """Comparisons, requests, cache hits, retries, and what went wrong.

        `unparsed_answers` counts answers without a verdict, `unparsed` comparisons that stayed without one, and
        `position_decides` comparisons whose two orders name different winners.
        """
        return dict(self._counts + self.client.counts)

    def compare(self, prompts: Sequence[Prompt], first: Sequence[str], second: Sequence[str]) -> Tensor:
        """P(first > second) (N,), float64; NaN where the judge gave no verdict and `on_parse_failure` is `drop`.

        Two equal answers are not asked about: they get 1/2.

        Raises:
            InputError: the endpoint does not answer or refuses, or gives no verdict and `on_parse_failure` is `error`.
        """
        n = check_lengths(prompts, first, second)
        sides = zip([*prompts, *prompts], [*first, *second], [*second, *first], strict=True)
        asked = [self._question(*side) for side in sides]
        different = [i for i in range(n) if first[i] != second[i]]
        questions = list(dict.fromkeys(asked[at] for i in different for at in (i, n + i)))
        won = dict(zip(questions, self._verdicts(questions), strict=True))
        forward_N, backward_N = (
            torch.tensor([VALUES[won.get(asked[start + i], 0)] for i in range(n)], dtype=torch.float64)
            for start in (0, n)
        )
        p_N = both_orders(forward_N, backward_N)
        self._counts["comparisons"] += n
        self._counts["position_decides"] += int(((forward_N - 0.5) * (backward_N - 0.5) > 0).sum())
        self._counts["unparsed"] += int(p_N.isnan().sum())
        return p_N

    def _question(self, prompt: Prompt, first: str, second: str) -> str:
        return fill(self.prompt_template, dict(zip(PLACES, (text_of(prompt), first, second), strict=True)))

    def _verdicts(self, questions: Sequence[str]) -> list[int | None]:
        """1, -1 or 0 for each question, None where the judge gave none."""
        with self.client:
            results, failure = in_parallel(self._verdict, questions, self.max_parallel)
        if failure is None:
            return [results[i] for i in range(len(questions))]
        if not isinstance(failure, NoAnswer | InputError):
            raise failure
        what = f"oracle judge: {self.client.base} {failure}" if isinstance(failure, NoAnswer) else str(failure)
        raise InputError(
            f"{what}. {len(results)} of the {len(questions)} verdicts asked for just now are kept in "
            f"{self.cache.folder}, and earlier ones with the run. When the judge works again, resume: "
            "`nashtune fit --ckpt_path last --run_dir RUN` asks only for the others"
        ) from failure

    def _verdict(self, question: str, stop: Event) -> int | None:
        messages = [{"role": "user", "content": question}]
        request = {"model": self.client.model, "messages": messages, **self.options}
        known = self.cache.get(request)
        if known is not None and (verdict := self.read(known)) is not None:
            self.client.count("cache_hits")
            return verdict
        for asked in range(1, self.asks + 1):
            answer = self.client.ask(messages, self.options, stop)
            verdict = self.read(answer)
            if verdict is not None:
                self.cache.put(request, answer, asked)
                return verdict
            self.client.count("unparsed_answers")
            said = {"role": "assistant", "content": answer or "(nothing)"}  # some servers refuse an empty turn
            messages = [*messages, said, {"role": "user", "content": self.reminder}]
        if self.on_parse_failure == "drop":
            return None
        raise InputError(
            f"oracle judge: {self.client.model!r} at {self.client.base} was asked {self.asks} times and gave no "
            f"verdict; its last answer: {answer[:120]!r}. Look at oracle.prompt_template and oracle.verdict, raise "
            "oracle.max_tokens if the answer is cut off, or set oracle.on_parse_failure: drop"
        )


def _options(temperature: float | None, max_tokens: int | None, extra: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of every request besides model and messages, as JSON knows them."""
    if own := sorted(set(OWN_FIELDS) & set(extra)):
        raise InputError(
            f"oracle.extra: {', '.join(own)} cannot be set there; the oracle sets it by options of its own"
        )
    given = {"temperature": temperature, "max_tokens": max_tokens}
    try:
        # JSON's keys are texts and YAML's need not be: only what is sent can be compared with what was kept
        return {name: value for name, value in given.items() if value is not None} | dict(json.loads(json.dumps(extra)))
    except (TypeError, ValueError) as error:
        raise InputError(f"oracle.extra: cannot be written as JSON: {error}") from error
