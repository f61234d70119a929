"""The schedule of every offline method: one round over a fixed data set."""

from __future__ import annotations

from nashtune.interfaces.schedule import Anchor, Round, Schedule, Update


class OfflineSchedule(Schedule):
    """One round without sampling: log-probs of the anchors, then gradient steps. How long it trains, the run says."""

    def rounds(self) -> tuple[Round, ...]:
        """The one round."""
        return (Round(phases=(Anchor(), Update())),)
