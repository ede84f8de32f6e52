"""The scripts' positional arguments: defaults from their own components, then what a request names.

Mirrors the rules of A1111's modules/api/api.py, including the lenient ones: too few arguments leave the
rest at their defaults, surplus ones are dropped.
"""

from __future__ import annotations

from typing import Any

from fastapi import HTTPException


def _index_of(name: str, scripts: list[Any]) -> int:
    titles = [script.title().lower() for script in scripts]
    if name.lower() not in titles:
        raise HTTPException(status_code=422, detail=f"Script '{name}' not found")
    return titles.index(name.lower())


def default_args(runner: Any) -> list[Any]:
    """Every script's `ui()` is called afresh, as the host does; its components' values are the defaults."""
    import gradio as gr  # a page is there, or the API would have been given the defaults

    args: list[Any] = [None] * max([1, *(script.args_to for script in runner.scripts)])
    args[0] = 0
    with gr.Blocks(analytics_enabled=False):
        for script in runner.scripts:
            components = script.ui(script.is_img2img)
            if components:
                args[script.args_from : script.args_to] = [component.value for component in components]
    return args


def _apply_selectable(args: list[Any], request: Any, runner: Any) -> None:
    if not request.script_name:
        return
    index = _index_of(request.script_name, runner.selectable_scripts)
    script = runner.selectable_scripts[index]
    args[script.args_from : script.args_to] = request.script_args
    args[0] = index + 1


def _apply_alwayson(args: list[Any], request: Any, runner: Any) -> None:
    for name, entry in (request.alwayson_scripts or {}).items():
        script = runner.scripts[_index_of(name, runner.scripts)]
        if script.alwayson is False:
            detail = "Cannot have a selectable script in the always on scripts params"
            raise HTTPException(status_code=422, detail=detail)
        if "args" in entry:
            if not isinstance(entry["args"], list):
                kind = type(entry["args"]).__name__
                detail = f"args of script '{name}' must be a list, such as [{{...}}], got a {kind}"
                raise HTTPException(status_code=422, detail=detail)
            for offset in range(min(script.args_to - script.args_from, len(entry["args"]))):
                args[script.args_from + offset] = entry["args"][offset]


def args_for(request: Any, runner: Any, defaults: list[Any], from_infotext: dict[int, Any]) -> list[Any]:
    """The argument list of one request; 422 for a script that does not exist or is of the wrong kind."""
    args = list(defaults)
    for index, value in from_infotext.items():
        args[index] = value
    _apply_selectable(args, request, runner)
    _apply_alwayson(args, request, runner)
    return args
