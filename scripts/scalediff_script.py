"""The AlwaysOn script: reads its arguments and lets the host adapter install itself on the job `p`."""

import contextlib

from modules import script_callbacks, scripts

from scalediff.hosts.select import host_class
from scalediff.hosts.webui import job
from scalediff.page import accordion, preferences, routes, xyz
from scalediff.settings import log
from scalediff.settings.arguments import read_arguments

log.set_up()


class ScaleDiffScript(scripts.Script):
    """Holds nothing of a job: one object serves all of them, nested ones too."""

    def title(self):
        return "ScaleDiff"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        built = accordion.build(self.elem_id, "img2img" if is_img2img else "txt2img")
        self.infotext_fields = built.infotext_fields
        self.paste_field_names = built.paste_field_names
        return built.components

    def before_process(self, p, *args):
        with contextlib.suppress(ValueError):  # `process` tells the user
            job.apply_target(p, xyz.overridden(p, read_arguments(args)))

    def process(self, p, *args):
        job.clean(p)
        try:
            config = xyz.overridden(p, read_arguments(args))
        except ValueError as error:
            job.refuse(p, str(error))
            return
        if config.enabled:
            job.install(p, config, host_class())

    def process_batch(self, p, *args, **kwargs):
        job.count_stages(p, kwargs.get("batch_number", 0))

    def process_before_every_sampling(self, p, *args, **kwargs):
        job.before_sampling(p)

    def postprocess(self, p, processed, *args):
        job.uninstall(p)


script_callbacks.on_before_ui(xyz.add_axes)
script_callbacks.on_ui_settings(preferences.add_options)
script_callbacks.on_app_started(routes.register)
