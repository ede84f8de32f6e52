"""The noise levels of a model as they were, and the way back to them."""

from typing import Any

import torch


class NoiseLevels:
    """What `holder` (a predictor or model_sampling) has now: the table `sigmas` and, of a flow model, its shift."""

    def __init__(self, holder: Any):
        self.holder = holder
        self._sigmas = getattr(holder, "sigmas", None)
        self._parameters = _parameters(holder)

    def put_back(self) -> None:
        """The levels again, by the way that the holder has for it; nothing is touched where nothing changed."""
        set_parameters = getattr(self.holder, "set_parameters", None)
        if set_parameters is not None and self._parameters != _parameters(self.holder):
            set_parameters(**self._parameters)
        if self._sigmas is None:
            return
        now = self.holder.sigmas
        levels = self._sigmas.to(now.device)
        if torch.equal(now, levels):
            return
        if hasattr(self.holder, "set_sigmas"):
            self.holder.set_sigmas(levels)
        else:
            self.holder.sigmas = levels


def _parameters(holder: Any) -> dict[str, float]:
    """What the table of a flow model is made from.

    (Neo backend/modules/k_prediction.py:158, 192; reForge ldm_patched/modules/model_sampling.py:253, 347.)
    """
    named = {name: getattr(holder, name, None) for name in ("shift", "multiplier")}
    return {name: value for name, value in named.items() if value is not None}
