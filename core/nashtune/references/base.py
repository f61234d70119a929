"""Reference `base`: the policy as it is at the start of training."""

from __future__ import annotations

import copy
from typing import ClassVar

from nashtune.interfaces.policy import Policy
from nashtune.ranks import together
from nashtune.references.live import LiveReference, freeze, hf_policy


class BaseReference(LiveReference):
    """The policy at its starting weights, whatever those are (a base model, an SFT model, an SFT adapter).

    With a fresh LoRA adapter that is the policy's own module with the adapter switched off: no second model in memory.
    Otherwise it is a frozen copy, made when the reference is attached. At that moment the policy holds its starting
    weights also in a resumed run, because a checkpoint is restored after the model is set up.
    """

    snapshot: ClassVar[str | None] = "start"

    def attach(self, policy: Policy) -> None:
        """Remembers the policy; copies it where no adapter can be switched off."""
        self._policy = hf_policy(policy, "base")
        self._model = None
        if self._policy.adapter == "fresh":
            return
        if self._policy.sharding is None:
            self._model = freeze(copy.deepcopy(self._policy.loaded()))
        else:  # what is cut up cannot be copied: read again, and cut up as the policy is
            with together("references"):
                model = freeze(self._policy.starting_model(empty=self._policy.empty).model)
            self._model = self._policy.sharding.place(model)
