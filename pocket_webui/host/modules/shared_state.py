"""Mirrors modules/shared_state.py: what the running job is doing, and whether it was told to stop."""

from __future__ import annotations

import datetime
import logging
import time
from typing import Any

from modules import devices, errors, shared

log = logging.getLogger("pocket_webui")

AT_THE_END = -1
"""value of opts.show_progress_every_n_steps"""
_TOLD = (
    *("skipped", "interrupted", "stopping_generation"),
    *("job", "job_count", "job_timestamp", "job_no", "sampling_step", "sampling_steps"),
)


class State:
    """One instance, `shared.state`. `job_no` of `job_count` jobs are done; `sampling_step` counts in the
    current one."""

    skipped = False
    interrupted = False
    stopping_generation = False
    job = ""
    job_no = 0
    job_count = 0
    processing_has_refined_job_count = False
    job_timestamp = "0"
    sampling_step = 0
    sampling_steps = 0
    current_latent: Any = None
    current_image: Any = None
    current_image_sampling_step = 0
    id_live_preview = 0
    textinfo: str | None = None
    time_start: float | None = None

    def skip(self) -> None:
        self.skipped = True
        log.info("Received skip request")

    def interrupt(self) -> None:
        self.interrupted = True
        log.info("Received interrupt request")

    def stop_generating(self) -> None:
        self.stopping_generation = True
        log.info("Received stop generating request")

    def nextjob(self) -> None:
        """One more job is done; the next one starts at its first step."""
        if self._preview_period() == AT_THE_END:
            self.do_set_current_image()
        self.job_no, self.sampling_step, self.current_image_sampling_step = self.job_no + 1, 0, 0

    def dict(self) -> dict[str, Any]:
        """What the API's progress tells about the job."""
        return {name: getattr(self, name) for name in _TOLD}

    def begin(self, job: str = "(unknown)") -> None:
        """Resets everything for a new job; `job_count` -1 means "the processing decides"."""
        self.job, self.job_count, self.job_no = job, -1, 0
        self.processing_has_refined_job_count = False
        self.sampling_step = self.current_image_sampling_step = self.id_live_preview = 0
        self.current_latent = self.current_image = self.textinfo = None
        self.skipped = self.interrupted = self.stopping_generation = False
        self.job_timestamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
        self.time_start = time.time()
        devices.torch_gc()
        log.info("Starting job %s", job)

    def end(self) -> None:
        log.info("Ending job %s (%.2f seconds)", self.job, time.time() - (self.time_start or time.time()))
        self.job = ""
        self.job_count = 0
        devices.torch_gc()

    def _preview_period(self) -> int | None:
        """Steps from one preview to the next, AT_THE_END for one per job, None for no previews."""
        opts = shared.opts
        return opts.show_progress_every_n_steps if opts.live_previews_enable else None

    def set_current_image(self) -> None:
        """Makes a preview of the current latent if enough steps have passed since the last one."""
        period = self._preview_period()
        if period in (None, AT_THE_END) or not shared.parallel_processing_allowed:
            return
        if self.sampling_step >= self.current_image_sampling_step + period:
            self.do_set_current_image()

    def do_set_current_image(self) -> None:
        if self.current_latent is None:
            return
        from modules import sd_samplers

        as_grid = shared.opts.show_progress_grid
        draw = sd_samplers.samples_to_image_grid if as_grid else sd_samplers.sample_to_image
        try:
            self.assign_current_image(draw(self.current_latent))
        except Exception:
            # a preview must never stop the job whose models it borrows
            errors.record_exception()
        else:
            self.current_image_sampling_step = self.sampling_step

    def assign_current_image(self, image: Any) -> None:
        """Shows `image` as the preview; jpeg has no transparency."""
        jpeg = shared.opts.live_previews_image_format == "jpeg"
        self.current_image = image.convert("RGB") if jpeg and image.mode != "RGB" else image
        self.id_live_preview += 1
