"""Pictures on the way to the last one, saved by the host where the settings ask for them."""

from collections.abc import Sequence
from typing import Any

from modules import images
from modules.processing import create_infotext
from modules.shared import opts
from PIL import Image
from torch import Tensor

from scalediff.hosts.webui.pictures import to_image
from scalediff.method.cascade import Stage
from scalediff.settings import preferences


def save_stage(p: Any, rgb: Tensor, finished: Stage) -> None:
    """The pictures `[B, 3, H, W]` of a finished stage that is not the last."""
    if preferences.saves_stages(opts) and p.save_samples():
        save_pictures(p, [to_image(one) for one in rgb], f"-scalediff-stage-{finished.index + 1}")


def save_pictures(p: Any, pictures: Sequence[Image.Image], suffix: str) -> None:
    """One picture per image of the batch, with the job's parameters, named like the host's own."""
    for index, picture in enumerate(pictures):
        text = create_infotext(
            p, p.all_prompts, p.all_seeds, p.all_subseeds, [], iteration=p.iteration, position_in_batch=index
        )
        images.save_image(
            picture,
            p.outpath_samples,
            "",
            p.seeds[index],
            p.prompts[index],
            opts.samples_format,
            info=text,
            p=p,
            suffix=suffix,
        )
