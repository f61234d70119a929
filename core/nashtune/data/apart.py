"""Checked pairs and examples become token ids, prompt and completions apart."""

from __future__ import annotations

from collections.abc import Sequence

from nashtune.data.lengths import Limits, fit_row
from nashtune.data.messages import RowError
from nashtune.data.rows import Example, Pair, Ranked, Row
from nashtune.data.template import Rendered, Template
from nashtune.data.tokenise import RowEncoder, TokenRow, last_text


class ApartEncoder(RowEncoder):
    """For losses that read a policy's log-probs of pairs or single examples.

    Args:
        template: Renders and encodes them.
        limits: Lengths, and what to do beyond them.
        soft: Whether p_chosen goes into the rows.
    """

    def __init__(self, template: Template, limits: Limits, *, soft: bool) -> None:
        super().__init__(template.tokenizer, limits, soft=soft)
        self._template = template
        self._examples = False

    def encode(self, rows: Sequence[Row]) -> list[TokenRow]:
        """See `RowEncoder`."""
        rendered = self._render(rows)
        if self.unrendered:
            return []
        tokens = self._tokens(rows, rendered)
        if self.unusable:
            return []
        bos = self.tokenizer.bos_token_id
        fitted = [
            fit_row(row, row.longest, f"{row.longest} completion tokens", self.limits, bos, self.fitting)
            for row in tokens
        ]
        return [row for row in fitted if row is not None]

    def _render(self, rows: Sequence[Row]) -> list[Rendered]:
        rendered: list[Rendered] = []
        for row in rows:
            assert not isinstance(row, Ranked)
            completions = (row.chosen, row.rejected) if isinstance(row, Pair) else (row.completion,)
            try:
                rendered.append(self._template.render(row.prompt, completions))
            except RowError as error:
                self.unrendered.add(row.where, str(error))
        self.special_text += sum(row.special for row in rendered)
        self.eos_written += sum(row.eos_written for row in rendered)
        self.trimmed += sum(row.trimmed for row in rendered)
        return rendered

    def _tokens(self, rows: Sequence[Row], rendered: Sequence[Rendered]) -> list[TokenRow]:
        tokens: list[TokenRow] = []
        template = self._template
        prompts, answers = template.encode_prompts(rendered), template.encode_completions(rendered)
        for row, prompt, completions in zip(rows, prompts, answers, strict=True):
            if problem := self._problem(prompt, completions):
                self.unusable.add(row.where, problem)
            self._examples = isinstance(row, Example)
            tokens.append(
                TokenRow(
                    prompt_ids=tuple(prompt),
                    completions=tuple(map(tuple, completions)),
                    p_chosen=row.p_chosen if isinstance(row, Pair) and self.soft else None,
                    margin=row.margin if isinstance(row, Pair) else None,
                    desirable=row.desirable if isinstance(row, Example) else None,
                    where=row.where,
                    prompt_text=last_text(row.prompt),
                )
            )
        return tokens

    def _problem(self, prompt: Sequence[int], completions: Sequence[Sequence[int]]) -> str:
        if not prompt:
            return "the prompt has no tokens; a completion needs one to follow"
        if any(self._template.eos in ids[:-1] for ids in completions):
            eos = self.tokenizer.eos_token
            return f"a completion contains {eos}, which would end it in the middle; cut or remove it"
        if len({tuple(ids) for ids in completions}) < len(completions):
            return "'chosen' and 'rejected' are the same tokens once the template has trimmed them"
        return ""

    def notes(self, longest_prompt: int, longest_completion: int) -> list[str]:
        """See `RowEncoder`."""
        if not self._examples or longest_prompt + longest_completion <= self.limits.whole:
            return []
        return [
            "a prompt may lose its beginning where it is joined with another example's completion (for the KL estimate)"
        ]
