"""The AlwaysOn script: reads its arguments and lets the host adapter install itself on the job `p`."""

import contextlib

from modules import script_callbacks, scripts

from scalediff.hosts.webui import job as webui_job
from scalediff.hosts.webui import passes as webui_pass
from scalediff.hosts.webui import target as webui_target
from scalediff.page import accordion as page
from scalediff.page import preferences as settings
from scalediff.page import routes, xyz
from scalediff.settings import session

session.set_up_log()


class ScaleDiffScript(scripts.Script):
    """Holds nothing of a job: one object serves all of them, nested ones too."""

    def title(self):
        return "ScaleDiff"

    def show(self, is_img2img):
        return scripts.AlwaysVisible

    def ui(self, is_img2img):
        built = page.build(self.elem_id, "img2img" if is_img2img else "txt2img")
        self.infotext_fields = built.infotext_fields
        self.paste_field_names = built.paste_field_names
        return built.components

    def before_process(self, p, *args):
        with contextlib.suppress(ValueError):  # told in `process`
            webui_target.apply(p, xyz.overridden(p, session.read_config(args)))

    def process(self, p, *args):
        webui_job.clean(p)
        try:
            config = xyz.overridden(p, session.read_config(args))
        except ValueError as error:
            webui_pass.refuse(p, str(error))
            return
        if config.enabled:
            webui_job.install(p, config)

    def process_batch(self, p, *args, **kwargs):
        webui_job.announce(p, kwargs.get("batch_number", 0))

    def process_before_every_sampling(self, p, *args, **kwargs):
        webui_job.before_sampling(p)

    def postprocess(self, p, processed, *args):
        webui_job.uninstall(p)


script_callbacks.on_before_ui(xyz.add_axes)
script_callbacks.on_ui_settings(settings.add_options)
script_callbacks.on_app_started(routes.register)
