"""Part of what mirrors modules/scripts.py: the class that scripts derive from, and the arguments of its
methods."""

from __future__ import annotations

import re
import types
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

AlwaysVisible = object()


class MaskBlendArgs:
    """`blended_latent` is read back; without a denoiser this is the final blend of img2img."""

    def __init__(
        self,
        current_latent: Any,
        nmask: Any,
        init_latent: Any,
        mask: Any,
        blended_latent: Any,
        denoiser: Any = None,
        sigma: Any = None,
    ) -> None:
        self.current_latent, self.nmask, self.init_latent, self.mask = (
            current_latent,
            nmask,
            init_latent,
            mask,
        )
        self.blended_latent, self.denoiser, self.sigma = blended_latent, denoiser, sigma
        self.is_final_blend = denoiser is None


class PostSampleArgs:
    """`samples` is read back: latents, or decoded samples with `already_decoded`."""

    def __init__(self, samples: Any) -> None:
        self.samples = samples


class PostprocessImageArgs:
    """`image` (PIL) is read back."""

    def __init__(self, image: Any) -> None:
        self.image = image


class PostProcessMaskOverlayArgs:
    """`mask_for_overlay` and `overlay_image` are read back."""

    def __init__(self, index: int, mask_for_overlay: Any, overlay_image: Any) -> None:
        self.index, self.mask_for_overlay, self.overlay_image = index, mask_for_overlay, overlay_image


class PostprocessBatchListArgs:
    """`images`, a list of [3, H, W] tensors in [0, 1], is read back and may change its length."""

    def __init__(self, images: list) -> None:
        self.images = images


@dataclass
class OnComponent:
    component: Any


class Script:
    """Base class of scripts. `args_from:args_to` is the script's part of `p.script_args`."""

    name: str | None = None
    section: str | None = None
    filename: str | None = None
    args_from: int | None = None
    args_to: int | None = None
    alwayson = False
    is_txt2img = False
    is_img2img = False
    tabname: str | None = None
    group: Any = None
    create_group = True
    infotext_fields: list | None = None
    paste_field_names: list | None = None
    api_info: Any = None
    on_before_component_elem_id: list | None = None
    on_after_component_elem_id: list | None = None
    setup_for_ui_only = False
    controls: list | None = None

    def title(self) -> str:
        raise NotImplementedError

    def ui(self, is_img2img: bool) -> Any:
        """Builds the controls and returns those whose values the other methods receive as `*args`."""

    def show(self, is_img2img: bool) -> Any:
        """False, True (selectable) or AlwaysVisible."""
        return True

    def run(self, p: Any, *args: Any) -> Any:
        """For a selected script: does the whole job and returns a Processed."""

    def setup(self, p: Any, *args: Any) -> None:
        """When `p` has both its scripts and their arguments."""

    def before_process(self, p: Any, *args: Any) -> None:
        """First of all, before settings are overridden."""

    def process(self, p: Any, *args: Any) -> None:
        """When prompts and seeds are filled in, before `p.init`."""

    def before_process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Per batch (batch_number, prompts, seeds, subseeds), before tags are parsed off the prompts."""

    def after_extra_networks_activate(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """After extra networks are switched on, in both passes; also has extra_network_data."""

    def process_before_every_sampling(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Before each sampler call of the host (x, noise, c, uc)."""

    def process_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Per batch, before conditionings are made."""

    def postprocess_batch(self, p: Any, *args: Any, **kwargs: Any) -> None:
        """Per batch; `images` is a [B, 3, H, W] tensor in [0, 1]."""

    def postprocess_batch_list(self, p: Any, pp: PostprocessBatchListArgs, *args: Any, **kwargs: Any) -> None:
        """Per batch, with images as a list."""

    def on_mask_blend(self, p: Any, mba: MaskBlendArgs, *args: Any) -> None:
        """Where original content is put back while inpainting: at every step, and once at the end."""

    def post_sample(self, p: Any, ps: PostSampleArgs, *args: Any) -> None:
        """After sampling, before decoding."""

    def postprocess_image(self, p: Any, pp: PostprocessImageArgs, *args: Any) -> None:
        """Per image."""

    def postprocess_maskoverlay(self, p: Any, ppmo: PostProcessMaskOverlayArgs, *args: Any) -> None:
        """Per image, before the original is laid over it."""

    def postprocess_image_after_composite(self, p: Any, pp: PostprocessImageArgs, *args: Any) -> None:
        """Per image, after that."""

    def postprocess(self, p: Any, processed: Any, *args: Any) -> None:
        """At the end; not called if the job failed."""

    def before_hr(self, p: Any, *args: Any) -> None:
        """Inside the host's own hires pass, right before its sampler."""

    def before_component(self, component: Any, **kwargs: Any) -> None:
        """Before any component of the page is made."""

    def after_component(self, component: Any, **kwargs: Any) -> None:
        """After any component of the page is made."""

    def on_before_component(self, callback: Callable, *, elem_id: str) -> None:
        """Asks for `callback(OnComponent)` before the component with that id is made."""
        asked = self.on_before_component_elem_id or []
        self.on_before_component_elem_id = [*asked, (elem_id, callback)]

    def on_after_component(self, callback: Callable, *, elem_id: str) -> None:
        """Asks for `callback(OnComponent)` after the component with that id is made."""
        asked = self.on_after_component_elem_id or []
        self.on_after_component_elem_id = [*asked, (elem_id, callback)]

    def describe(self) -> str:
        return ""

    def _tab_prefix(self) -> str:
        """The tab's name where the script is shown in both tabs, so that ids stay unique."""
        if self.show(True) != self.show(False):
            return ""
        return "img2img_" if self.is_img2img else "txt2img_"

    def elem_id(self, item_id: str) -> str:
        """Id of a control: script_<tab>_<title>_<item>."""
        title = re.sub(r"[^a-z_0-9]", "", re.sub(r"\s", "_", self.title().lower()))
        return f"script_{self._tab_prefix()}{title}_{item_id}"


class ScriptBuiltinUI(Script):
    """A script of the host itself: always shown, shorter ids."""

    setup_for_ui_only = True

    def elem_id(self, item_id: str) -> str:
        return f"{self._tab_prefix()}{item_id}"

    def show(self, is_img2img: bool) -> Any:
        return AlwaysVisible


class ScriptClassData(NamedTuple):
    """A script class as it was found in a file."""

    script_class: type
    path: str
    basedir: str
    module: types.ModuleType


scripts_data: list[ScriptClassData] = []
"""all that are loaded"""
