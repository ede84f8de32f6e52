"""Mirrors modules/shared_options.py: the settings that the pocket host reads, with A1111's names.

Defaults differ in two places: noise comes from the CPU, and previews are decoded in full (there is no
approximate decoder for the pocket latent space).
"""

from __future__ import annotations

from typing import Any

from modules.options import OptionInfo
from modules.paths_internal import default_output_dir

_DEFAULTS: dict[str, Any] = {
    # files
    "samples_save": True,
    "samples_format": "png",
    "samples_filename_pattern": "",
    "save_images_add_number": True,
    "save_images_replace_action": "Replace",
    "grid_save": True,
    "grid_format": "png",
    "grid_extended_filename": False,
    "grid_only_if_multiple": True,
    "grid_prevent_empty_spots": False,
    "grid_background_color": "#ffffff",
    "n_rows": -1,
    "save_images_before_highres_fix": False,
    "save_mask": False,
    "save_mask_composite": False,
    "jpeg_quality": 80,
    "webp_lossless": False,
    "save_init_img": False,
    "save_incomplete_images": False,
    "outdir_samples": "",
    "outdir_txt2img_samples": f"{default_output_dir}/txt2img-images",
    "outdir_img2img_samples": f"{default_output_dir}/img2img-images",
    "outdir_grids": "",
    "outdir_txt2img_grids": f"{default_output_dir}/txt2img-grids",
    "outdir_img2img_grids": f"{default_output_dir}/img2img-grids",
    "outdir_init_images": f"{default_output_dir}/init-images",
    "save_to_dirs": True,
    "grid_save_to_dirs": True,
    "directories_filename_pattern": "[date]",
    # model and prompt
    "sd_model_checkpoint": None,
    "sd_checkpoints_limit": 1,
    "sd_vae": "Automatic",
    "sd_vae_encode_method": "Full",
    "sd_vae_decode_method": "Full",
    "emphasis": "Original",
    "CLIP_stop_at_last_layers": 1,
    "upcast_attn": False,
    "randn_source": "CPU",
    "tiling": False,
    "persistent_cond_cache": True,
    "sd_checkpoint_hash": "",
    "use_old_scheduling": False,
    # sampling
    "hide_samplers": [],
    "eta_ddim": 0.0,
    "eta_ancestral": 1.0,
    "s_churn": 0.0,
    "s_tmin": 0.0,
    "s_tmax": 0.0,
    "s_noise": 1.0,
    "sigma_min": 0.0,
    "sigma_max": 0.0,
    "rho": 0.0,
    "eta_noise_seed_delta": 0,
    "always_discard_next_to_last_sigma": False,
    "beta_dist_alpha": 0.6,
    "beta_dist_beta": 0.6,
    "s_min_uncond": 0.0,
    "s_min_uncond_all": False,
    "skip_early_cond": 0.0,
    "pad_cond_uncond": False,
    "pad_cond_uncond_v0": False,
    "batch_cond_uncond": True,
    # img2img and upscaling
    "initial_noise_multiplier": 1.0,
    "img2img_extra_noise": 0.0,
    "img2img_fix_steps": False,
    "img2img_background_color": "#ffffff",
    "return_mask": False,
    "return_mask_composite": False,
    "overlay_inpaint": True,
    "upscaler_for_img2img": None,
    # results and infotext
    "return_grid": True,
    "enable_pnginfo": True,
    "save_txt": False,
    "add_model_name_to_info": True,
    "add_model_hash_to_info": True,
    "add_vae_name_to_info": True,
    "add_vae_hash_to_info": True,
    "add_user_name_to_info": False,
    "add_version_to_infotext": True,
    "disable_weights_auto_swap": True,
    "infotext_skip_pasting": [],
    # progress
    "multiple_tqdm": True,
    "live_previews_enable": True,
    "live_previews_image_format": "png",
    "show_progress_grid": True,
    "show_progress_every_n_steps": 10,
    "live_preview_content": "Prompt",
}

# what infotext calls the settings that an image's infotext may carry
_INFOTEXT = {
    "sd_model_checkpoint": "Model hash",
    "sd_vae": "VAE",
    "sd_vae_encode_method": "VAE Encoder",
    "sd_vae_decode_method": "VAE Decoder",
    "emphasis": "Emphasis",
    "CLIP_stop_at_last_layers": "Clip skip",
    "randn_source": "RNG",
    "tiling": "Tiling",
    "use_old_scheduling": "Old prompt editing timelines",
    "eta_ddim": "Eta DDIM",
    "eta_ancestral": "Eta",
    "s_churn": "Sigma churn",
    "s_tmin": "Sigma tmin",
    "s_tmax": "Sigma tmax",
    "s_noise": "Sigma noise",
    "sigma_min": "Schedule min sigma",
    "sigma_max": "Schedule max sigma",
    "rho": "Schedule rho",
    "eta_noise_seed_delta": "ENSD",
    "always_discard_next_to_last_sigma": "Discard penultimate sigma",
    "beta_dist_alpha": "Beta scheduler alpha",
    "beta_dist_beta": "Beta scheduler beta",
    "s_min_uncond": "NGMS",
    "s_min_uncond_all": "NGMS all steps",
    "skip_early_cond": "Skip Early CFG",
    "pad_cond_uncond": "Pad conds",
    "pad_cond_uncond_v0": "Pad conds v0",
    "initial_noise_multiplier": "Noise multiplier",
    "img2img_extra_noise": "Extra noise",
}

options_templates = {
    key: OptionInfo(default, key.replace("_", " "), infotext=_INFOTEXT.get(key))
    for key, default in _DEFAULTS.items()
}
