"""Reference `adapter_off`: the policy with its LoRA adapter switched off."""

from __future__ import annotations

from nashtune.interfaces.policy import Policy
from nashtune.models.preflight import check_adapter_off
from nashtune.references.live import LiveReference, hf_policy


class AdapterOffReference(LiveReference):
    """The policy's own module without its adapter; refused wherever that is not the policy at the start of training.

    `base` gives the same where this is allowed; name this one to be sure that no second model is loaded.
    """

    def attach(self, policy: Policy) -> None:
        """Remembers the policy.

        Raises:
            InputError: all weights are trained, or the adapter is an SFT adapter: switched off, it would leave the base
                model, not the SFT model.
        """
        self._policy = hf_policy(policy, "adapter_off")
        self._model = None
        check_adapter_off(self._policy.folder, self._policy.config.lora, "references")
