"""Endpoints under /scalediff/v1: the version, the schema of the settings, and what a job would cost.

They ask for the credentials that the host's own API asks for. Our page has none and uses /scalediff/v1/page/estimate.

No annotations from the future here: FastAPI looks up those of a function made inside another in the wrong
place. Bodies are read as they are and checked by our own tables: hosts have pydantic 1 or 2.
"""

import json
from typing import Any

from torch import nn

from scalediff import __version__
from scalediff.models.units import network_of
from scalediff.page import page_key, preview
from scalediff.page.request import REQUEST, SETTINGS
from scalediff.settings import preferences, schema

PREFIX = "/scalediff/v1"
HOSTS_ROUTE = "/sdapi/v1/txt2img"


def register(demo: Any, app: Any) -> None:
    """Add the endpoints to the host's application, once. For `on_app_started`."""
    from fastapi import HTTPException, Request, Response
    from starlette.concurrency import run_in_threadpool

    async def estimate(request: Request):  # type: ignore[no-untyped-def]  # a return type would be a model
        try:
            return await run_in_threadpool(estimate_body, await request.body())
        except ValueError as error:
            raise HTTPException(status_code=422, detail=str(error)) from None

    async def page_estimate(request: Request):  # type: ignore[no-untyped-def]
        _check_page(request)
        return await estimate(request)

    async def last(request: Request, tab: str):  # type: ignore[no-untyped-def]
        from scalediff.hosts.webui import keep

        _check_page(request)
        return keep.last_run(tab).described()

    async def picture(request: Request, tab: str, run: int, number: int, step: int):  # type: ignore[no-untyped-def]
        from scalediff.hosts.webui import keep

        _check_page(request)
        found = keep.step_of(tab, run, number, step)
        if found is None:
            raise HTTPException(status_code=404, detail="this picture is not kept any more")
        return Response(await run_in_threadpool(found.jpeg), media_type="image/jpeg")

    known = {getattr(route, "path", None) for route in app.routes}
    guarded, hidden = {"dependencies": hosts_dependencies(app)}, {"include_in_schema": False}
    for name, endpoint, options in (
        ("version", version, {"methods": ["GET"], **guarded}),
        ("schema", schema.settings_schema, {"methods": ["GET"], "response_model": None, **guarded}),
        ("estimate", estimate, {"methods": ["POST"], "openapi_extra": _request_body(), **guarded}),
        ("page/estimate", page_estimate, {"methods": ["POST"], **hidden}),
        ("page/last/{tab}", last, {"methods": ["GET"], "response_model": None, **hidden}),
        (
            "page/picture/{tab}/{run}/{number}/{step}",
            picture,
            {"methods": ["GET"], "response_model": None, **hidden},
        ),
    ):
        path = f"{PREFIX}/{name}"
        if path not in known:
            app.add_api_route(path, endpoint, **options)


def _check_page(request: Any) -> None:
    """HTTP 403 for whoever was not shown our page."""
    from fastapi import HTTPException

    if not page_key.opens(request.headers.get(page_key.HEADER)):
        raise HTTPException(status_code=403, detail="this is for ScaleDiff's page, which has been made anew")


def hosts_dependencies(app: Any) -> list[Any]:
    """What the host's own API lets a client pass by: FastAPI dependencies of its route for pictures, or none.

    A host with `--api-auth` puts its check of name and password on each of its routes (modules/api/api.py,
    `add_api_route`); the API is there before `on_app_started` is called.
    """
    own = (route for route in app.routes if getattr(route, "path", None) == HOSTS_ROUTE)
    return list(getattr(next(own, None), "dependencies", ()))


def version():  # type: ignore[no-untyped-def]
    """Name and version of the extension, and the adapter chosen for this host."""
    from scalediff.hosts.select import host_class

    return {"name": "sd-webui-scalediff", "version": __version__, "host": host_class().name}


def estimate_body(body: bytes) -> dict[str, Any]:
    """The estimate for a request's body, JSON as text; ValueError in one sentence for anything wrong with it."""
    try:
        request = json.loads(body or b"{}")
    except (ValueError, RecursionError):
        raise ValueError("the request must be a JSON object, and this is no JSON") from None
    from scalediff.hosts.webui.checkpoint import selected_family

    model = loaded_model()
    return preview.preview_job(request, model, selected_family() if model is None else None)


def loaded_model() -> preview.HostModel | None:
    """What the next picture is made with; None where it is not loaded yet. Loads nothing itself."""
    from modules import devices, sd_models, shared

    from scalediff.cost.card import card_of
    from scalediff.hosts.select import host_class
    from scalediff.hosts.webui.checks import why_not_plan
    from scalediff.hosts.webui.latents import LatentForm
    from scalediff.hosts.webui.memory import vae_of
    from scalediff.hosts.webui.progress import evaluations
    from scalediff.hosts.webui.sampling import fit_to_sampler
    from scalediff.hosts.webui.target import hires_size
    from scalediff.hosts.webui.times import TIMES, speed_key
    from scalediff.hosts.webui.vae import tile_chooser

    host = host_class()
    model = host.current(sd_models.model_data)
    network = network_of(model)
    if not isinstance(network, nn.Module):
        return None
    model_map = host.inspect(model)
    apart = hasattr(model, "forge_objects")  # text encoders are unloaded while the network works
    return preview.HostModel(
        network=network if apart else model,
        vae=vae_of(model),
        model_map=model_map,
        fit_settings=lambda config, sampler: fit_to_sampler(host.fit_to_model(model, config), sampler),
        skips_uncond=apart,
        paired=bool(getattr(shared.opts, "batch_cond_uncond", True)),
        evaluations=evaluations,
        times=TIMES,
        key=speed_key(model, devices.device),
        card=card_of(devices.device, ceiling=preferences.memory_ceiling(shared.opts)),
        tiles=lambda config: tile_chooser(model, config, LatentForm.of(model_map)),
        why_not=lambda plan, config, sampler: why_not_plan(model, host, plan, config, sampler),
        hires_size=hires_size,
    )


def _request_body() -> dict[str, Any]:
    """The estimate's body for the host's /docs page."""
    described = schema.object_schema(REQUEST)
    settings = schema.settings_schema()
    by_name = {key: value for key, value in settings.items() if key != "$schema"}
    by_place = {"type": "array", "description": "The same values in the order of the object's properties."}
    described["properties"][SETTINGS] = {"anyOf": [by_name, by_place]}
    return {"requestBody": {"content": {"application/json": {"schema": described}}}}
