"""`--from`: training goes on from a checkpoint, in the latents that its UNet knows."""

from __future__ import annotations

from pathlib import Path

import torch

from pocket_webui.model.build import read_config
from pocket_webui.model.checkpoint import config_of, load_checkpoint
from training import config, vae
from training.from_eps import SAMPLES, fit_output, move_timesteps, same_noise
from training.latents import Latents
from training.parallel import average
from training.unet import Denoiser
from training.vae import Autoencoder


class Start:
    """The checkpoint, and `params` of what is made of it: v-prediction, zero terminal SNR, a larger VAE or not."""

    def __init__(self, checkpoint: Path, *, larger: bool = True) -> None:
        """Raises what loading a checkpoint raises, where it or its yaml is missing or does not fit."""
        self.own = read_config(config_of(checkpoint))
        self.found = load_checkpoint(checkpoint)
        self.params = config.continued(self.own, blocks=config.BLOCKS if larger else 0)["model"]["params"]
        self.scale = float(self.own["scale_factor"])

    def autoencoder(self, device: torch.device | str = "cpu") -> Autoencoder:
        """The checkpoint's with new blocks, if any, computing what it did.

        A block of ldm's adds conv2(...) to its input: with that at zero a new one adds nothing.
        """
        model = vae.build(self.params, device)
        missing = model.load_state_dict(self.found.first_stage_model.state_dict(), strict=False).missing_keys
        for name in missing:
            if ".conv2." in name:
                torch.nn.init.zeros_(model.get_parameter(name))
        return model

    def anchor(self, device: torch.device | str = "cpu") -> Autoencoder:
        """The checkpoint's as it is: its latents are those that the UNet knows."""
        model = vae.build(self.own, device)
        model.load_state_dict(self.found.first_stage_model.state_dict())
        return model.eval().requires_grad_(False)

    def begin(self, model: Denoiser, *, latents: Latents, ranks: int) -> None:
        """UNet and text table as the checkpoint has them; of an eps model the ends are fitted to v on our schedule."""
        model.unet.load_state_dict(self.found.model.diffusion_model.state_dict())
        model.text.load_state_dict(self.found.cond_stage_model.state_dict())
        if torch.equal(self.found.alphas_cumprod, model.alphas_cumprod.cpu()):
            return
        move_timesteps(model.unet, same_noise(self.found.alphas_cumprod, model.alphas_cumprod.cpu()))
        fit_output(model, latents, SAMPLES)
        average((p.data for p in model.unet.parameters()), ranks)
