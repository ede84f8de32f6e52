"""Sizes of the pocket model, in the shape of a Stable Diffusion yaml; the loader reads the same structure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

TARGET = "pocket_webui.model.diffusion.LatentDiffusion"
LATENT_CHANNELS = 16
BLOCKS = 1  # residual blocks at each level of the autoencoder, one more in the decoder


def pocket_config(scale_factor: float = 1.0, channels: int = LATENT_CHANNELS) -> dict:
    """The yaml beside the checkpoint: native 128 x 128 px, latents of 1/8, self-attention at two levels as in SDXL."""
    return {
        "model": {
            "target": TARGET,
            "params": {
                "linear_start": 0.00085,
                "linear_end": 0.0120,
                "timesteps": 1000,
                "image_size": 16,
                "channels": channels,
                "scale_factor": scale_factor,
                "parameterization": "eps",
                "unet_config": {
                    "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
                    "params": {
                        "image_size": 16,
                        "in_channels": channels,
                        "out_channels": channels,
                        "model_channels": 64,
                        "num_res_blocks": 1,
                        "channel_mult": [1, 1, 2],
                        "attention_resolutions": [2, 4],
                        "num_head_channels": 32,
                        "use_spatial_transformer": True,
                        "use_linear_in_transformer": True,
                        "transformer_depth": 1,
                        "context_dim": 64,
                        "use_checkpoint": False,
                        "legacy": False,
                    },
                },
                "first_stage_config": {
                    "target": "ldm.models.autoencoder.AutoencoderKL",
                    "params": {
                        "embed_dim": channels,
                        "ddconfig": {
                            "double_z": True,
                            "z_channels": channels,
                            "resolution": 128,
                            "in_channels": 3,
                            "out_ch": 3,
                            "ch": 64,
                            "ch_mult": [1, 1, 1, 1],
                            "num_res_blocks": 0,
                            "attn_resolutions": [],
                            "dropout": 0.0,
                        },
                    },
                },
                "cond_stage_config": {
                    "target": "pocket_webui.model.text.PocketTextEmbedder",
                    "params": {"width": 64},
                },
            },
        }
    }


def trained_config(scale_factor: float = 1.0) -> dict[str, Any]:
    """What `python -m training` makes: v-prediction, zero terminal SNR, and an autoencoder with more fine detail.

    Predicting v on a schedule that ends without signal is what keeps the mean brightness (arXiv:2305.08891). The
    autoencoder has a residual block at every level and twice the width where eight pixels meet in a cell: one of
    64 channels without blocks kept less of the finest band's energy, by any loss that was tried.
    """
    config = continued(pocket_config(scale_factor)["model"]["params"])
    config["model"]["params"]["first_stage_config"]["params"]["ddconfig"].update(ch_mult=[1, 1, 1, 2])
    return config


def continued(params: Mapping[str, Any], *, blocks: int = BLOCKS) -> dict[str, Any]:
    """What `--from` makes of a model with these parameters: its own widths, v, zero terminal SNR, at least `blocks`."""
    own = copy.deepcopy(dict(params))
    own.update(parameterization="v", zero_terminal_snr=True)
    ddconfig = own["first_stage_config"]["params"]["ddconfig"]
    ddconfig["num_res_blocks"] = max(blocks, ddconfig["num_res_blocks"])
    return described(own)


def described(params: Mapping[str, Any]) -> dict[str, Any]:
    """The yaml of a model with these parameters."""
    return {"model": {"target": TARGET, "params": dict(params)}}
