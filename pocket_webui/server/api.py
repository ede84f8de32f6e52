"""Generating and steering: /sdapi/v1/txt2img, img2img, progress, interrupt, skip, options, png-info."""

from __future__ import annotations

import time
from typing import Any

from fastapi import FastAPI, HTTPException
from modules import images, infotext_utils, script_callbacks, scripts, sd_models, sd_samplers, shared
from modules.processing import Processed, StableDiffusionProcessingImg2Img, StableDiffusionProcessingTxt2Img

from pocket_webui.server import infotext, jobs, pictures, replies
from pocket_webui.server.progress import fraction_done
from pocket_webui.server.requests import REQUEST_ONLY, Img2ImgRequest, Txt2ImgRequest, why_not
from pocket_webui.server.script_args import args_for, default_args

PREFIX = "/sdapi/v1"


def _processing_arguments(request: Any) -> dict[str, Any]:
    """Constructor arguments of the processing class; 400 for an unknown sampler, 422 for what it would fail on."""
    reason = why_not(request)
    if reason is not None:
        raise HTTPException(status_code=422, detail=reason)
    wanted = request.sampler_name or request.sampler_index
    sampler, scheduler = sd_samplers.get_sampler_and_scheduler(wanted, request.scheduler)
    if sampler not in sd_samplers.all_samplers_map:
        raise HTTPException(status_code=400, detail="Sampler not found")
    values = {name: getattr(request, name) for name in type(request).model_fields if name not in REQUEST_ONLY}
    values.pop("sampler_index")
    values["sampler_name"] = sampler
    if not values["scheduler"] and scheduler != "Automatic":
        values["scheduler"] = scheduler
    values["do_not_save_samples"] = values["do_not_save_grid"] = not request.save_images
    return values


class Api:
    """The routes that read or change the running job. Runners must have their controls (see `page.build`).

    `defaults`: the scripts' arguments per tab, if they are known already.
    """

    def __init__(self, defaults: dict[str, list[Any]] | None = None) -> None:
        self.runners = {"txt2img": scripts.scripts_txt2img, "img2img": scripts.scripts_img2img}
        self.defaults = defaults or {tab: default_args(runner) for tab, runner in self.runners.items()}

    def install(self, app: FastAPI) -> None:
        app.add_api_route(
            f"{PREFIX}/txt2img", self.txt2img, methods=["POST"], response_model=replies.ImagesReply
        )
        app.add_api_route(
            f"{PREFIX}/img2img", self.img2img, methods=["POST"], response_model=replies.ImagesReply
        )
        app.add_api_route(
            f"{PREFIX}/progress", self.progress, methods=["GET"], response_model=replies.ProgressReply
        )
        app.add_api_route(f"{PREFIX}/interrupt", self.interrupt, methods=["POST"])
        app.add_api_route(f"{PREFIX}/skip", self.skip, methods=["POST"])
        app.add_api_route(f"{PREFIX}/options", self.get_options, methods=["GET"])
        app.add_api_route(f"{PREFIX}/options", self.set_options, methods=["POST"])
        app.add_api_route(
            f"{PREFIX}/png-info", self.png_info, methods=["POST"], response_model=replies.PngInfoReply
        )

    # -- generating --------------------------------------------------------------------------------

    def generate_txt2img(self, request: Txt2ImgRequest) -> Processed:  # type: ignore[valid-type]
        """Runs the request as the route does and returns the host's result; used by the command line too."""
        args = self._script_args("txt2img", request)
        p = StableDiffusionProcessingTxt2Img(sd_model=shared.sd_model, **_processing_arguments(request))
        return self._run("txt2img", p, args)

    def generate_img2img(self, request: Img2ImgRequest) -> Processed:  # type: ignore[valid-type]
        """As `generate_txt2img`; 404 without an init image."""
        if not request.init_images:  # type: ignore[attr-defined]
            raise HTTPException(status_code=404, detail="Init image not found")
        args = self._script_args("img2img", request)
        values = _processing_arguments(request)
        values["init_images"] = [pictures.from_base64(text) for text in values["init_images"]]
        values["mask"] = pictures.from_base64(values["mask"]) if values["mask"] else None
        p = StableDiffusionProcessingImg2Img(sd_model=shared.sd_model, **values)
        return self._run("img2img", p, args)

    def _script_args(self, tab: str, request: Any) -> list[Any]:
        runner = self.runners[tab]
        return args_for(request, runner, self.defaults[tab], infotext.apply(request, tab, runner))

    def _run(self, tab: str, p: Any, script_args: list[Any]) -> Processed:
        p.is_api = True
        p.outpath_samples = getattr(shared.opts, f"outdir_{tab}_samples")
        p.outpath_grids = getattr(shared.opts, f"outdir_{tab}_grids")
        return jobs.run(p, self.runners[tab], script_args, job=f"scripts_{tab}")

    def _reply(self, request: Any, processed: Processed) -> replies.ImagesReply:
        encoded = [pictures.to_base64(image) for image in processed.images] if request.send_images else []
        parameters = {name: getattr(request, name) for name in type(request).model_fields}
        parameters.pop("include_init_images", None)
        return replies.ImagesReply(images=encoded, parameters=parameters, info=processed.js())

    def txt2img(self, request: Txt2ImgRequest) -> replies.ImagesReply:  # type: ignore[valid-type]
        return self._reply(request, self.generate_txt2img(request))

    def img2img(self, request: Img2ImgRequest) -> replies.ImagesReply:  # type: ignore[valid-type]
        processed = self.generate_img2img(request)
        if not request.include_init_images:  # type: ignore[attr-defined]
            request.init_images = request.mask = None  # type: ignore[attr-defined]
        return self._reply(request, processed)

    # -- the running job ---------------------------------------------------------------------------

    def progress(self, skip_current_image: bool = False) -> replies.ProgressReply:
        """`progress` 0..1 over all passes of the job, `eta_relative` in seconds; both 0 when idle."""
        state = shared.state
        if state.job_count == 0:
            return replies.ProgressReply(
                progress=0, eta_relative=0, state=state.dict(), textinfo=state.textinfo
            )
        fraction = fraction_done(state)
        elapsed = time.time() - (state.time_start or time.time())
        state.set_current_image()
        preview = None if skip_current_image or state.current_image is None else state.current_image
        return replies.ProgressReply(
            progress=fraction,
            eta_relative=elapsed / fraction - elapsed,
            state=state.dict(),
            current_image=pictures.to_base64(preview) if preview else None,
            textinfo=state.textinfo,
        )

    def interrupt(self) -> dict[str, Any]:
        shared.state.interrupt()
        return {}

    def skip(self) -> None:
        shared.state.skip()

    # -- settings and pictures ---------------------------------------------------------------------

    def get_options(self) -> dict[str, Any]:
        return dict(shared.opts.data)

    def set_options(self, values: dict[str, Any]) -> None:
        checkpoint = values.get("sd_model_checkpoint")
        if checkpoint is not None and checkpoint not in sd_models.checkpoint_aliases:
            raise RuntimeError(f"model {checkpoint!r} not found")
        for key, value in values.items():
            shared.opts.set(key, value, is_api=True)
        shared.opts.save(shared.config_filename)

    def png_info(self, request: replies.PngInfoRequest) -> replies.PngInfoReply:
        found, items = images.read_info_from_image(pictures.from_base64(request.image.strip()))
        text = found or ""
        params = infotext_utils.parse_generation_parameters(text)
        script_callbacks.infotext_pasted_callback(text, params)
        texts = {key: value for key, value in items.items() if isinstance(value, (str, int, float, bool))}
        return replies.PngInfoReply(info=text, items=texts, parameters=params)
