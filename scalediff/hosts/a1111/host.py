"""The cascade's Host on Automatic1111 1.10: attention by instance-level forwards, the ldm/sgm schedule."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from modules import sd_models, shared
from modules.hypernetworks import hypernetwork
from torch import nn

from scalediff.hosts.a1111.kernel import chosen_attend, is_exact
from scalediff.hosts.webui.host import WebUIHost
from scalediff.hosts.webui.memory import attention_room
from scalediff.hosts.webui.sampling import no_refiner
from scalediff.method import schedule
from scalediff.method.cascade import Stage
from scalediff.models import inspection as models
from scalediff.models.inspection import ModelMap
from scalediff.models.windowed_unet import WindowedAttention
from scalediff.settings.preferences import attention_choice


class A1111Host(WebUIHost):
    """Windows replace the forward of each attn1 module; the DDIM family shows eps to the callbacks."""

    name = "a1111"
    eps_from_timestep_samplers = True

    @classmethod
    def inspect(cls, sd_model: Any) -> ModelMap:
        """The map of the ldm or sgm model that is loaded."""
        return models.inspect(sd_model)

    def unet(self) -> nn.Module:
        """The ldm or sgm UNet."""
        return self.p.sd_model.model.diffusion_model

    def sigma(self, tau: float) -> float:
        """Noise level of timestep `tau`, read now: the host may change the schedule for an image."""
        return schedule.sigma_of_timestep(self.p.sd_model.alphas_cumprod, tau)

    @contextmanager
    def window_scope(self) -> Iterator[None]:
        """Token merging and refiner off."""
        with _no_token_merging(self.p.sd_model), no_refiner(self.p):
            yield

    @contextmanager
    def windows(self, stage: Stage) -> Iterator[None]:
        """Windowed self-attention on the model that is loaded now."""
        window = self.window()
        hypernetworks = shared.loaded_hypernetworks
        self.rows.restart()
        attend = chosen_attend()
        with WindowedAttention(
            self.model_map,
            window,
            shift=self.shift(stage, window),
            rows=self.rows.images_of_call,
            context_filter=(lambda x: hypernetwork.apply_hypernetworks(hypernetworks, x))
            if hypernetworks
            else None,
            attend=attend,
            exact=is_exact(attend),
            choice=attention_choice(shared.opts),
            upcast=bool(shared.opts.upcast_attn),
            room=attention_room(self.p, self.unet(), self.model_map, stage.latent_size),
        ) as windowed:
            yield
        self.note_windows(stage, windowed.calls, windowed.fallbacks)


@contextmanager
def _no_token_merging(model: Any) -> Iterator[None]:
    """Merged tokens have no grid. The ratio on `p` cannot say 0: the host reads that as "not set"."""
    ratio = getattr(model, "applied_token_merged_ratio", 0)
    sd_models.apply_token_merging(model, 0)
    try:
        yield
    finally:
        sd_models.apply_token_merging(model, ratio)
