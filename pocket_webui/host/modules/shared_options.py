"""Mirrors modules/shared_options.py: the settings that the pocket host reads, with A1111's names.

Defaults differ in two places: noise comes from the CPU, and previews are decoded in full (there is no
approximate decoder for the pocket latent space).
"""

from __future__ import annotations

from modules.options import OptionInfo, options_section
from modules.paths_internal import default_output_dir

restricted_opts = {
    "samples_filename_pattern",
    "directories_filename_pattern",
    "outdir_samples",
    "outdir_txt2img_samples",
    "outdir_img2img_samples",
    "outdir_grids",
    "outdir_txt2img_grids",
    "outdir_img2img_grids",
    "outdir_save",
    "outdir_init_images",
}

# section -> key -> (default, label) or (default, label, infotext)
_TABLE: dict[tuple, dict[str, tuple]] = {
    ("saving-images", "Saving images/grids", "saving"): {
        "samples_save": (True, "Always save all generated images"),
        "samples_format": ("png", "File format for images"),
        "samples_filename_pattern": ("", "Images filename pattern"),
        "save_images_add_number": (True, "Add number to filename when saving"),
        "save_images_replace_action": ("Replace", "Saving the image to an existing file"),
        "grid_save": (True, "Always save all generated image grids"),
        "grid_format": ("png", "File format for grids"),
        "grid_extended_filename": (False, "Add extended info (seed, prompt) to filename when saving grid"),
        "grid_only_if_multiple": (True, "Do not save grids consisting of one picture"),
        "grid_prevent_empty_spots": (False, "Prevent empty spots in grid (when set to autodetect)"),
        "grid_background_color": ("#ffffff", "Background color for image grids"),
        "n_rows": (-1, "Grid row count; use -1 for autodetect and 0 for it to be same as batch size"),
        "save_images_before_highres_fix": (False, "Save a copy of image before applying highres fix."),
        "save_mask": (False, "For inpainting, save a copy of the greyscale mask"),
        "save_mask_composite": (False, "For inpainting, save a masked composite"),
        "jpeg_quality": (80, "Quality for saved jpeg and avif images"),
        "webp_lossless": (False, "Use lossless compression for webp images"),
        "save_init_img": (False, "Save init images when using img2img"),
        "save_incomplete_images": (False, "Save incomplete images"),
    },
    ("saving-paths", "Paths for saving", "saving"): {
        "outdir_samples": ("", "Output directory for images; if empty, defaults to three directories below"),
        "outdir_txt2img_samples": (
            f"{default_output_dir}/txt2img-images",
            "Output directory for txt2img images",
        ),
        "outdir_img2img_samples": (
            f"{default_output_dir}/img2img-images",
            "Output directory for img2img images",
        ),
        "outdir_grids": ("", "Output directory for grids; if empty, defaults to two directories below"),
        "outdir_txt2img_grids": (f"{default_output_dir}/txt2img-grids", "Output directory for txt2img grids"),
        "outdir_img2img_grids": (f"{default_output_dir}/img2img-grids", "Output directory for img2img grids"),
        "outdir_save": (f"{default_output_dir}/saved", "Directory for saving images using the Save button"),
        "outdir_init_images": (f"{default_output_dir}/init-images", "Directory for saving init images"),
    },
    ("saving-to-dirs", "Saving to a directory", "saving"): {
        "save_to_dirs": (True, "Save images to a subdirectory"),
        "grid_save_to_dirs": (True, "Save grids to a subdirectory"),
        "directories_filename_pattern": ("[date]", "Directory name pattern"),
    },
    ("upscaling", "Upscaling", "postprocessing"): {
        "upscaler_for_img2img": (None, "Upscaler for img2img"),
    },
    ("system", "System", "system"): {
        "multiple_tqdm": (
            True,
            "Add a second progress bar to the console that shows progress for an entire job.",
        ),
    },
    ("sd", "Stable Diffusion", "sd"): {
        "sd_model_checkpoint": (None, "Stable Diffusion checkpoint", "Model hash"),
        "sd_checkpoints_limit": (1, "Maximum number of checkpoints loaded at the same time"),
        "sd_unet": ("Automatic", "SD Unet"),
        "sd_vae": ("Automatic", "SD VAE", "VAE"),
        "sd_vae_encode_method": ("Full", "VAE type for encode", "VAE Encoder"),
        "sd_vae_decode_method": ("Full", "VAE type for decode", "VAE Decoder"),
        "auto_vae_precision": (True, "Automatically revert VAE to 32-bit floats"),
        "auto_vae_precision_bfloat16": (False, "Automatically convert VAE to bfloat16"),
        "emphasis": ("Original", "Emphasis mode", "Emphasis"),
        "CLIP_stop_at_last_layers": (1, "Clip skip", "Clip skip"),
        "comma_padding_backtrack": (20, "Prompt word wrap length limit"),
        "upcast_attn": (False, "Upcast cross attention layer to float32"),
        "randn_source": ("CPU", "Random number generator source.", "RNG"),
        "tiling": (False, "Tiling", "Tiling"),
        "hires_fix_refiner_pass": (
            "second pass",
            "Hires fix: which pass to enable refiner for",
            "Hires refiner",
        ),
        "persistent_cond_cache": (True, "Persistent cond cache"),
        "enable_quantization": (False, "Enable quantization in K samplers"),
        "sdxl_crop_top": (0, "crop top coordinate"),
        "sdxl_crop_left": (0, "crop left coordinate"),
    },
    ("img2img", "img2img", "sd"): {
        "inpainting_mask_weight": (1.0, "Inpainting conditioning mask strength", "Conditional mask weight"),
        "initial_noise_multiplier": (1.0, "Noise multiplier for img2img", "Noise multiplier"),
        "img2img_extra_noise": (0.0, "Extra noise multiplier for img2img and hires fix", "Extra noise"),
        "img2img_fix_steps": (False, "With img2img, do exactly the amount of steps the slider specifies."),
        "img2img_background_color": ("#ffffff", "With img2img, fill transparent parts of the input image"),
        "return_mask": (False, "For inpainting, include the greyscale mask in results for web"),
        "return_mask_composite": (False, "For inpainting, include masked composite in results for web"),
        "overlay_inpaint": (True, "Overlay original for inpaint"),
    },
    ("optimizations", "Optimizations", "sd"): {
        "cross_attention_optimization": ("Automatic", "Cross attention optimization"),
        "s_min_uncond": (0.0, "Negative Guidance minimum sigma", "NGMS"),
        "s_min_uncond_all": (False, "Negative Guidance minimum sigma all steps", "NGMS all steps"),
        "skip_early_cond": (0.0, "Ignore negative prompt during early sampling", "Skip Early CFG"),
        "token_merging_ratio": (0.0, "Token merging ratio", "Token merging ratio"),
        "token_merging_ratio_img2img": (0.0, "Token merging ratio for img2img"),
        "token_merging_ratio_hr": (0.0, "Token merging ratio for high-res pass", "Token merging ratio hr"),
        "pad_cond_uncond": (False, "Pad prompt/negative prompt", "Pad conds"),
        "pad_cond_uncond_v0": (False, "Pad prompt/negative prompt (v0)", "Pad conds v0"),
        "batch_cond_uncond": (True, "Batch cond/uncond"),
        "fp8_storage": ("Disable", "FP8 weight", "FP8 weight"),
        "cache_fp16_weight": (False, "Cache FP16 weight for LoRA"),
    },
    ("compatibility", "Compatibility", "sd"): {
        "use_old_karras_scheduler_sigmas": (False, "Use old karras scheduler sigmas (0.1 to 10)."),
        "use_old_hires_fix_width_height": (
            False,
            "For hires fix, use width/height sliders for the final size",
        ),
        "hires_fix_use_firstpass_conds": (
            False,
            "For hires fix, calculate conds of second pass with the first's",
        ),
        "use_old_scheduling": (False, "Use old prompt editing timelines.", "Old prompt editing timelines"),
        "use_downcasted_alpha_bar": (
            False,
            "Downcast model alphas_cumprod to fp16",
            "Downcast alphas_cumprod",
        ),
    },
    ("ui_gallery", "Gallery", "ui"): {
        "return_grid": (True, "Show grid in gallery"),
    },
    ("ui", "User interface", "ui"): {
        "hires_fix_show_sampler": (False, "Hires fix: show hires checkpoint and sampler selection"),
        "hires_fix_show_prompts": (False, "Hires fix: show hires prompt and negative prompt"),
        "interrupt_after_current": (True, "Don't Interrupt in the middle"),
    },
    ("infotext", "Infotext", "ui"): {
        "enable_pnginfo": (True, "Write infotext to metadata of the generated image"),
        "save_txt": (False, "Create a text file with infotext next to every generated image"),
        "add_model_name_to_info": (True, "Add model name to infotext"),
        "add_model_hash_to_info": (True, "Add model hash to infotext"),
        "add_vae_name_to_info": (True, "Add VAE name to infotext"),
        "add_vae_hash_to_info": (True, "Add VAE hash to infotext"),
        "add_user_name_to_info": (False, "Add user name to infotext when authenticated"),
        "add_version_to_infotext": (True, "Add program version to infotext"),
        "disable_weights_auto_swap": (True, "Disregard checkpoint information from pasted infotext"),
        "infotext_skip_pasting": ([], "Disregard fields from pasted infotext"),
    },
    ("ui_live_preview", "Live previews", "ui"): {
        "show_progressbar": (True, "Show progressbar"),
        "live_previews_enable": (True, "Show live previews of the created image"),
        "live_previews_image_format": ("png", "Live preview file format"),
        "show_progress_grid": (True, "Show previews of all images generated in a batch as a grid"),
        "show_progress_every_n_steps": (10, "Live preview display period"),
        "show_progress_type": ("Full", "Live preview method"),
        "live_preview_content": ("Prompt", "Live preview subject"),
        "live_preview_fast_interrupt": (False, "Return image with chosen live preview method on interrupt"),
    },
    ("sampler-params", "Sampler parameters", "sd"): {
        "hide_samplers": ([], "Hide samplers in user interface"),
        "eta_ddim": (0.0, "Eta for DDIM", "Eta DDIM"),
        "eta_ancestral": (1.0, "Eta for k-diffusion samplers", "Eta"),
        "s_churn": (0.0, "sigma churn", "Sigma churn"),
        "s_tmin": (0.0, "sigma tmin", "Sigma tmin"),
        "s_tmax": (0.0, "sigma tmax", "Sigma tmax"),
        "s_noise": (1.0, "sigma noise", "Sigma noise"),
        "sigma_min": (0.0, "sigma min", "Schedule min sigma"),
        "sigma_max": (0.0, "sigma max", "Schedule max sigma"),
        "rho": (0.0, "rho", "Schedule rho"),
        "eta_noise_seed_delta": (0, "Eta noise seed delta", "ENSD"),
        "always_discard_next_to_last_sigma": (
            False,
            "Always discard next-to-last sigma",
            "Discard penultimate sigma",
        ),
        "sgm_noise_multiplier": (False, "SGM noise multiplier", "SGM noise multiplier"),
        "beta_dist_alpha": (0.6, "Beta scheduler - alpha", "Beta scheduler alpha"),
        "beta_dist_beta": (0.6, "Beta scheduler - beta", "Beta scheduler beta"),
    },
    (None, "Hidden options"): {
        "disabled_extensions": ([], "Disable these extensions"),
        "disable_all_extensions": ("none", "Disable all extensions"),
        "sd_checkpoint_hash": ("", "SHA256 hash of the current checkpoint"),
    },
}


def _build() -> dict[str, OptionInfo]:
    templates: dict[str, OptionInfo] = {}
    for section, rows in _TABLE.items():
        infos = {
            key: OptionInfo(row[0], row[1], infotext=row[2] if len(row) > 2 else None)
            for key, row in rows.items()
        }
        templates.update(options_section(section, infos))
    return templates


options_templates = _build()
