"""Reference `checkpoint`: another model from a folder."""

from __future__ import annotations

from contextlib import nullcontext

from nashtune.errors import InputError
from nashtune.interfaces.policy import Policy
from nashtune.models.loading import load_model
from nashtune.models.preflight import check_folder, load_tokenizer
from nashtune.ranks import together
from nashtune.references.live import LiveReference, freeze, hf_policy

OPTION = "references.path"


class CheckpointReference(LiveReference):
    """A frozen model of its own, loaded from a folder, with the policy's precision and attention.

    Args:
        path: Folder of a Hugging Face causal LM or of a LoRA adapter for one (merged on loading); `demo:` and `hub:`
            work too.
    """

    def __init__(self, *, path: str) -> None:
        super().__init__()
        self.path = path

    def attach(self, policy: Policy) -> None:
        """Loads the model.

        Raises:
            InputError: the folder is not a model, or its tokens are not the policy's.
        """
        self._policy = hf_policy(policy, "checkpoint")
        folder = check_folder(self.path, chat=False, option=OPTION)
        config = self._policy.config
        if load_tokenizer(self.path, OPTION).get_vocab() != self._policy.tokenizer().get_vocab():
            raise InputError(
                f"{OPTION}: the tokenizer of {self.path} is not that of the policy {config.path}; "
                "log-probs of the same token ids would be about different texts"
            )
        sharding = self._policy.sharding
        with together("references") if sharding is not None else nullcontext():
            loaded = load_model(
                folder,
                precision=config.precision,
                attention=config.attention,
                adapter="merge",
                option=OPTION,
                empty=self._policy.empty,
            )
        own, its = (model.get_input_embeddings().weight.shape[0] for model in (self._policy.loaded(), loaded.model))
        if own != its:
            raise InputError(f"{OPTION}: {self.path} has a vocabulary of {its}, the policy {config.path} of {own}")
        self._model = freeze(loaded.model)
        if sharding is not None:
            sharding.place(self._model)
