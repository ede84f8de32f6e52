"""Part of what mirrors modules/scripts.py: runs the scripts of one tab and builds their controls.

Whatever a script raises is reported and does not stop the job.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from typing import Any

from modules import errors, shared
from modules.api.models import ScriptArg, ScriptInfo
from modules.scripts.base import AlwaysVisible, OnComponent, Script, scripts_data


@contextlib.contextmanager
def _reporting(what: str) -> Iterator[None]:
    """Whatever goes wrong inside is reported, and that is all."""
    try:
        yield
    except Exception:
        errors.report(what, exc_info=True)


def wrap_call(func: Callable, filename: str | None, funcname: str, *args: Any, default: Any = None) -> Any:
    """What `func(*args)` returns, or `default` after a reported failure."""
    with _reporting(f"Error calling: {filename}/{funcname}"):
        return func(*args)
    return default


def _hook(name: str) -> Callable[..., None]:
    """A method of the runner that calls the method of that name on all AlwaysOn scripts that have it."""

    def call(self: ScriptRunner, p: Any, *first: Any, **kwargs: Any) -> None:
        for script in self.ordered_scripts(name):
            self._call(script, name, p, *first, **kwargs)

    call.__name__ = name
    return call


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
        for known in (self.scripts, self.alwayson_scripts, self.selectable_scripts):
            known.clear()
        self.infotext_fields.clear()
        self.paste_field_names.clear()
        for data in scripts_data:
            with _reporting(f"Error # failed to initialize Script {data.module}: "):
                self._add(data.script_class(), data.path, is_img2img)
        self.apply_on_before_component_callbacks()

    def _add(self, script: Script, path: str, is_img2img: bool) -> None:
        script.filename = path
        script.is_txt2img, script.is_img2img = not is_img2img, is_img2img
        script.tabname = "img2img" if is_img2img else "txt2img"
        shown = script.show(is_img2img)
        script.alwayson = shown == AlwaysVisible
        if shown:
            self.scripts.append(script)
            (self.alwayson_scripts if script.alwayson else self.selectable_scripts).append(script)

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
        """Lets the script make its controls and notes where they stand among the arguments of a job."""
        script.args_from = script.args_to = len(self.inputs)
        with _reporting(f"Error creating UI for {script.name}: "):
            script.controls = wrap_call(script.ui, script.filename, "ui", script.is_img2img)
            if script.controls is not None:
                self._take_controls(script, script.controls)

    def _take_controls(self, script: Script, controls: list[Any]) -> None:
        title = wrap_call(script.title, script.filename, "title") or script.filename or ""
        script.name = title.lower()
        described = [_describe_control(control) for control in controls]
        script.api_info = ScriptInfo(
            name=script.name, is_alwayson=script.alwayson, is_img2img=script.is_img2img, args=described
        )
        for control in controls:
            control.custom_script_source = os.path.basename(script.filename or "")
        self.infotext_fields.extend(script.infotext_fields or [])
        self.paste_field_names.extend(script.paste_field_names or [])
        self.inputs.extend(controls)
        script.args_to = len(self.inputs)

    def setup_ui_for_section(self, section: str | None, scriptlist: list[Script] | None = None) -> None:
        gr = importlib.import_module("gradio")
        for script in self.alwayson_scripts if scriptlist is None else scriptlist:
            if script.alwayson and script.section != section:
                continue
            if not script.create_group:
                self.create_script_ui(script)
                continue
            script.group = gr.Group(visible=script.alwayson)
            with script.group:
                self.create_script_ui(script)

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
        if not args[0]:
            return None
        script = self.selectable_scripts[args[0] - 1]
        try:
            return script.run(p, *args[script.args_from : script.args_to])
        finally:
            shared.total_tqdm.clear()

    def ordered_scripts(self, method_name: str) -> list[Script]:
        """AlwaysOn scripts (all scripts for component hooks) that define the method."""
        everyone = method_name in ("before_component", "after_component")
        inherited = getattr(Script, method_name, None)
        return [
            script
            for script in (self.scripts if everyone else self.alwayson_scripts)
            if getattr(type(script), method_name, None) is not inherited
        ]

    def _call(self, script: Script, method_name: str, p: Any, *first: Any, **kwargs: Any) -> None:
        with _reporting(f"Error running {method_name}: {script.filename}"):
            own = p.script_args[script.args_from : script.args_to]
            getattr(script, method_name)(p, *first, *own, **kwargs)

    def setup_scrips(self, p: Any, *, is_ui: bool = True) -> None:
        for script in self.ordered_scripts("setup"):
            if is_ui or not script.setup_for_ui_only:
                self._call(script, "setup", p)

    def postprocess_batch(self, p: Any, images: Any, **kwargs: Any) -> None:
        for script in self.ordered_scripts("postprocess_batch"):
            self._call(script, "postprocess_batch", p, images=images, **kwargs)

    before_process = _hook("before_process")
    process = _hook("process")
    before_process_batch = _hook("before_process_batch")
    after_extra_networks_activate = _hook("after_extra_networks_activate")
    process_batch = _hook("process_batch")
    before_hr = _hook("before_hr")
    process_before_every_sampling = _hook("process_before_every_sampling")
    on_mask_blend = _hook("on_mask_blend")
    post_sample = _hook("post_sample")
    postprocess_batch_list = _hook("postprocess_batch_list")
    postprocess_image = _hook("postprocess_image")
    postprocess_maskoverlay = _hook("postprocess_maskoverlay")
    postprocess_image_after_composite = _hook("postprocess_image_after_composite")
    postprocess = _hook("postprocess")

    # -- the page

    def _component(self, method_name: str, table: dict[str, list], component: Any, kwargs: dict) -> None:
        for callback, script in table.get(kwargs.get("elem_id", ""), []):
            with _reporting(f"Error running on_{method_name}: {script.filename}"):
                callback(OnComponent(component=component))
        for script in self.ordered_scripts(method_name):
            with _reporting(f"Error running {method_name}: {script.filename}"):
                getattr(script, method_name)(component, **kwargs)

    def before_component(self, component: Any, **kwargs: Any) -> None:
        self._component("before_component", self.on_before_component_elem_id, component, kwargs)

    def after_component(self, component: Any, **kwargs: Any) -> None:
        kwargs.setdefault("elem_id", getattr(component, "elem_id", None))
        self._component("after_component", self.on_after_component_elem_id, component, kwargs)
