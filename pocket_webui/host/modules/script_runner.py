"""Part of what mirrors modules/scripts.py: runs the scripts of one tab and builds their controls.

Whatever a script raises is reported and does not stop the job.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import Any

from modules import errors
from modules.api.models import ScriptArg, ScriptInfo
from modules.script_base import (
    AlwaysVisible,
    MaskBlendArgs,
    OnComponent,
    PostprocessBatchListArgs,
    PostprocessImageArgs,
    PostProcessMaskOverlayArgs,
    PostSampleArgs,
    Script,
)


def wrap_call(func: Callable, filename: str | None, funcname: str, *args: Any, default: Any = None) -> Any:
    try:
        return func(*args)
    except Exception:
        errors.report(f"Error calling: {filename}/{funcname}", exc_info=True)
    return default


def _describe_control(control: Any) -> ScriptArg:
    info = ScriptArg(label=control.label or "")
    for field in ("value", "minimum", "maximum", "step"):
        setattr(info, field, getattr(control, field, None))
    choices = getattr(control, "choices", None)
    if choices is not None:
        info.choices = [choice[0] if isinstance(choice, tuple) else choice for choice in choices]
    return info


class ScriptRunner:
    """Scripts of the txt2img or the img2img tab. `inputs[0]` is the dropdown of selectable scripts."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.selectable_scripts: list[Script] = []
        self.alwayson_scripts: list[Script] = []
        self.titles: list[str] = []
        self.title_map: dict[str, Script] = {}
        self.infotext_fields: list[Any] = []
        self.paste_field_names: list[str] = []
        self.inputs: list[Any] = [None]
        self.on_before_component_elem_id: dict[str, list] = {}
        self.on_after_component_elem_id: dict[str, list] = {}

    def initialize_scripts(self, is_img2img: bool) -> None:
        """Fresh instances of all loaded script classes that show themselves in this tab."""
        from modules import scripts

        for known in (
            self.scripts,
            self.alwayson_scripts,
            self.selectable_scripts,
            self.infotext_fields,
            self.paste_field_names,
        ):
            known.clear()
        for data in scripts.scripts_data:
            try:
                script = data.script_class()
            except Exception:
                errors.report(f"Error # failed to initialize Script {data.module}: ", exc_info=True)
                continue
            script.filename = data.path
            script.is_txt2img, script.is_img2img = not is_img2img, is_img2img
            script.tabname = "img2img" if is_img2img else "txt2img"
            visibility = script.show(is_img2img)
            if not visibility:
                continue
            script.alwayson = visibility == AlwaysVisible
            self.scripts.append(script)
            (self.alwayson_scripts if script.alwayson else self.selectable_scripts).append(script)
        self.apply_on_before_component_callbacks()

    def apply_on_before_component_callbacks(self) -> None:
        """Takes over what scripts asked for with on_before_component and on_after_component."""
        for script in self.scripts:
            for asked, table in (
                (script.on_before_component_elem_id, self.on_before_component_elem_id),
                (script.on_after_component_elem_id, self.on_after_component_elem_id),
            ):
                for elem_id, callback in asked or []:
                    table.setdefault(elem_id, []).append((callback, script))
                if asked:
                    asked.clear()

    # -- controls

    def prepare_ui(self) -> None:
        self.inputs = [None]

    def create_script_ui(self, script: Script) -> None:
        script.args_from = script.args_to = len(self.inputs)
        try:
            self._create_script_ui_inner(script)
        except Exception:
            errors.report(f"Error creating UI for {script.name}: ", exc_info=True)

    def _create_script_ui_inner(self, script: Script) -> None:
        controls = wrap_call(script.ui, script.filename, "ui", script.is_img2img)
        script.controls = controls
        if controls is None:
            return
        script.name = wrap_call(script.title, script.filename, "title", default=script.filename).lower()
        for control in controls:
            control.custom_script_source = os.path.basename(script.filename or "")
        script.api_info = ScriptInfo(
            name=script.name,
            is_alwayson=script.alwayson,
            is_img2img=script.is_img2img,
            args=[_describe_control(control) for control in controls],
        )
        self.infotext_fields += script.infotext_fields or []
        self.paste_field_names += script.paste_field_names or []
        self.inputs += controls
        script.args_to = len(self.inputs)

    def setup_ui_for_section(self, section: str | None, scriptlist: list[Script] | None = None) -> None:
        gr = importlib.import_module("gradio")
        for script in self.alwayson_scripts if scriptlist is None else scriptlist:
            if script.alwayson and script.section != section:
                continue
            if not script.create_group:
                self.create_script_ui(script)
                continue
            with gr.Group(visible=script.alwayson) as group:
                self.create_script_ui(script)
            script.group = group

    def setup_ui(self) -> list[Any]:
        """Builds the controls of all scripts and the dropdown of selectable ones; returns `inputs`."""
        gr = importlib.import_module("gradio")
        titles = [wrap_call(s.title, s.filename, "title") or s.filename or "" for s in self.scripts]
        self.title_map = {title.lower(): script for title, script in zip(titles, self.scripts)}
        self.titles = [t for t, s in zip(titles, self.scripts) if s in self.selectable_scripts]
        self.setup_ui_for_section(None)
        dropdown = gr.Dropdown(
            label="Script", elem_id="script_list", choices=["None", *self.titles], value="None", type="index"
        )
        self.inputs[0] = dropdown
        self.setup_ui_for_section(None, self.selectable_scripts)

        def select_script(index: int | None) -> list[Any]:
            return [gr.update(visible=index == i + 1) for i in range(len(self.selectable_scripts))]

        groups = [script.group for script in self.selectable_scripts]
        dropdown.change(fn=select_script, inputs=[dropdown], outputs=groups)
        self.infotext_fields.append((dropdown, lambda params: gr.update(value=params.get("Script", "None"))))
        self.apply_on_before_component_callbacks()
        return self.inputs

    def script(self, title: str) -> Script | None:
        return self.title_map.get(title.lower())

    # -- the job

    def run(self, p: Any, *args: Any) -> Any:
        """What the selected script returns, or None if none is selected (`args[0]` is its number, from 1)."""
        from modules import shared

        if not args[0]:
            return None
        script = self.selectable_scripts[args[0] - 1]
        processed = script.run(p, *args[script.args_from : script.args_to])
        shared.total_tqdm.clear()
        return processed

    def ordered_scripts(self, method_name: str) -> list[Script]:
        """AlwaysOn scripts (all scripts for component hooks) that define the method."""
        everyone = method_name in ("before_component", "after_component")
        candidates = self.scripts if everyone else self.alwayson_scripts
        return [
            s
            for s in candidates
            if getattr(type(s), method_name, None) is not getattr(Script, method_name, None)
        ]

    def _call(self, method_name: str, p: Any, *first: Any, **kwargs: Any) -> None:
        for script in self.ordered_scripts(method_name):
            try:
                script_args = p.script_args[script.args_from : script.args_to]
                getattr(script, method_name)(p, *first, *script_args, **kwargs)
            except Exception:
                errors.report(f"Error running {method_name}: {script.filename}", exc_info=True)

    def setup_scrips(self, p: Any, *, is_ui: bool = True) -> None:
        for script in self.ordered_scripts("setup"):
            if not is_ui and script.setup_for_ui_only:
                continue
            try:
                script.setup(p, *p.script_args[script.args_from : script.args_to])
            except Exception:
                errors.report(f"Error running setup: {script.filename}", exc_info=True)

    def before_process(self, p: Any) -> None:
        self._call("before_process", p)

    def process(self, p: Any) -> None:
        self._call("process", p)

    def process_before_every_sampling(self, p: Any, **kwargs: Any) -> None:
        self._call("process_before_every_sampling", p, **kwargs)

    def before_process_batch(self, p: Any, **kwargs: Any) -> None:
        self._call("before_process_batch", p, **kwargs)

    def after_extra_networks_activate(self, p: Any, **kwargs: Any) -> None:
        self._call("after_extra_networks_activate", p, **kwargs)

    def process_batch(self, p: Any, **kwargs: Any) -> None:
        self._call("process_batch", p, **kwargs)

    def postprocess(self, p: Any, processed: Any) -> None:
        self._call("postprocess", p, processed)

    def postprocess_batch(self, p: Any, images: Any, **kwargs: Any) -> None:
        self._call("postprocess_batch", p, images=images, **kwargs)

    def postprocess_batch_list(self, p: Any, pp: PostprocessBatchListArgs, **kwargs: Any) -> None:
        self._call("postprocess_batch_list", p, pp, **kwargs)

    def post_sample(self, p: Any, ps: PostSampleArgs) -> None:
        self._call("post_sample", p, ps)

    def on_mask_blend(self, p: Any, mba: MaskBlendArgs) -> None:
        self._call("on_mask_blend", p, mba)

    def postprocess_image(self, p: Any, pp: PostprocessImageArgs) -> None:
        self._call("postprocess_image", p, pp)

    def postprocess_maskoverlay(self, p: Any, ppmo: PostProcessMaskOverlayArgs) -> None:
        self._call("postprocess_maskoverlay", p, ppmo)

    def postprocess_image_after_composite(self, p: Any, pp: PostprocessImageArgs) -> None:
        self._call("postprocess_image_after_composite", p, pp)

    def before_hr(self, p: Any) -> None:
        self._call("before_hr", p)

    # -- the page

    def _component(self, method_name: str, table: dict[str, list], component: Any, kwargs: dict) -> None:
        for callback, script in table.get(kwargs.get("elem_id", ""), []):
            try:
                callback(OnComponent(component=component))
            except Exception:
                errors.report(f"Error running on_{method_name}: {script.filename}", exc_info=True)
        for script in self.ordered_scripts(method_name):
            try:
                getattr(script, method_name)(component, **kwargs)
            except Exception:
                errors.report(f"Error running {method_name}: {script.filename}", exc_info=True)

    def before_component(self, component: Any, **kwargs: Any) -> None:
        self._component("before_component", self.on_before_component_elem_id, component, kwargs)

    def after_component(self, component: Any, **kwargs: Any) -> None:
        kwargs.setdefault("elem_id", getattr(component, "elem_id", None))
        self._component("after_component", self.on_after_component_elem_id, component, kwargs)
