"""The AlwaysOn script: reads its arguments and lets the host adapter install itself on the job `p`."""

import contextlib
import importlib
import sys
from pathlib import Path

from modules import script_callbacks, scripts

FOLDER = Path(__file__).resolve().parent.parent / "scalediff"
LOADED = "_loaded_files"  # on the package: the files that its modules were made from


def forget_other_versions():
    """Drop the modules of a `scalediff` that is not the one beside this file, as it is now.

    Hosts run this file anew at *Reload UI*, after an update too, and keep the modules that it imported before.
    """
    now = {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in FOLDER.rglob("*.py")}
    package = sys.modules.get("scalediff")
    if package is not None and not _is_of_these_files(package, now):
        for name in [name for name in sys.modules if name.split(".")[0] == "scalediff"]:
            del sys.modules[name]
        importlib.invalidate_caches()
    setattr(importlib.import_module("scalediff"), LOADED, now)


def _is_of_these_files(package, now):
    known = getattr(package, LOADED, None)
    if known is not None:
        return known == now
    # imported by somebody else, or by a version that did not keep this
    here = FOLDER in {Path(path).resolve() for path in package.__path__}
    version = f'__version__ = "{getattr(package, "__version__", None)}"'
    return here and version in (FOLDER / "__init__.py").read_text(encoding="utf-8")


forget_other_versions()

from scalediff.hosts.select import host_class  # noqa: E402
from scalediff.hosts.webui import job  # noqa: E402
from scalediff.page import accordion, preferences, routes, xyz  # noqa: E402
from scalediff.settings import log  # noqa: E402
from scalediff.settings.arguments import read_arguments  # noqa: E402

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
        job.take_back(p)
        with contextlib.suppress(ValueError):  # `process` tells the user
            job.prepare(p, xyz.overridden(p, read_arguments(args)), host_class())

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
        job.finish(p, processed)


script_callbacks.on_before_ui(xyz.add_axes)
script_callbacks.on_ui_settings(preferences.add_options)
script_callbacks.on_app_started(routes.register)
