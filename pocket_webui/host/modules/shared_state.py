"""Mirrors modules/shared_state.py: what the running job is doing, and whether it was told to stop."""

from __future__ import annotations

import datetime
import logging
import threading
import time
from typing import Any

from modules import devices, errors, shared

log = logging.getLogger("pocket_webui")


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

    def __init__(self) -> None:
        self.server_start = time.time()
        self._server_command: str | None = None
        self._server_command_signal = threading.Event()

    @property
    def server_command(self) -> str | None:
        return self._server_command

    @server_command.setter
    def server_command(self, value: str | None) -> None:
        self._server_command = value
        self._server_command_signal.set()

    def wait_for_server_command(self, timeout: float | None = None) -> str | None:
        """The next command given to the server, or None after `timeout` seconds."""
        if not self._server_command_signal.wait(timeout):
            return None
        self._server_command_signal.clear()
        command, self._server_command = self._server_command, None
        return command

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
        if shared.opts.live_previews_enable and shared.opts.show_progress_every_n_steps == -1:
            self.do_set_current_image()
        self.job_no += 1
        self.sampling_step = 0
        self.current_image_sampling_step = 0

    def dict(self) -> dict[str, Any]:
        names = (
            "skipped",
            "interrupted",
            "stopping_generation",
            "job",
            "job_count",
            "job_timestamp",
            "job_no",
            "sampling_step",
            "sampling_steps",
        )
        return {name: getattr(self, name) for name in names}

    def begin(self, job: str = "(unknown)") -> None:
        """Resets everything for a new job; `job_count` -1 means "the processing decides"."""
        self.job_count, self.job_no = -1, 0
        self.processing_has_refined_job_count = False
        self.sampling_step = self.current_image_sampling_step = self.id_live_preview = 0
        self.current_latent = self.current_image = self.textinfo = None
        self.skipped = self.interrupted = self.stopping_generation = False
        self.job_timestamp = datetime.datetime.now().strftime("%Y%m%d%H%M%S")
        self.time_start = time.time()
        self.job = job
        devices.torch_gc()
        log.info("Starting job %s", job)

    def end(self) -> None:
        log.info("Ending job %s (%.2f seconds)", self.job, time.time() - (self.time_start or time.time()))
        self.job = ""
        self.job_count = 0
        devices.torch_gc()

    def set_current_image(self) -> None:
        """Makes a preview of the current latent if enough steps have passed since the last one."""
        period = shared.opts.show_progress_every_n_steps
        if not shared.parallel_processing_allowed or not shared.opts.live_previews_enable or period == -1:
            return
        if self.sampling_step - self.current_image_sampling_step >= period:
            self.do_set_current_image()

    def do_set_current_image(self) -> None:
        if self.current_latent is None:
            return
        from modules import sd_samplers_common

        try:
            if shared.opts.show_progress_grid:
                image = sd_samplers_common.samples_to_image_grid(self.current_latent)
            else:
                image = sd_samplers_common.sample_to_image(self.current_latent)
            self.assign_current_image(image)
            self.current_image_sampling_step = self.sampling_step
        except Exception:
            # a preview must never stop the job whose models it borrows
            errors.record_exception()

    def assign_current_image(self, image: Any) -> None:
        if shared.opts.live_previews_image_format == "jpeg" and image.mode in ("RGBA", "P"):
            image = image.convert("RGB")
        self.current_image = image
        self.id_live_preview += 1
