"""What the host hands to the second pass of Hires. fix: the first picture, as latent or as pixels.

Most hosts hand pixels over in [-1, 1] and clamp them in `sample_hr_pass` (Automatic1111 1.10.1
modules/processing.py:1401, Forge 1467, reForge 1527). Neo 2.26 clamps in `sample` (processing.py:1483) and hands
over [0, 1]. A dark picture looks alike in both, so it is told by what the host's own methods do.
"""

import ast
import inspect
import textwrap
from functools import lru_cache
from typing import Any

from modules import processing
from torch import Tensor

from scalediff.hosts.webui.latents import LatentForm, pictures_of
from scalediff.method.geometry import PixelSize, whole_cells

CLAMP = "clamp"


def picture_of(decoded: Tensor | None) -> Tensor | None:
    """`[B, 3, H, W]` fp32 in [-1, 1] of the host's `decoded_samples`; None where it handed none over.

    They may have what `pictures_of` leaves out.
    """
    if decoded is None:
        return None
    rgb = pictures_of(decoded)
    kind: Any = processing.StableDiffusionProcessingTxt2Img
    return rgb * 2 - 1 if hands_unit_range(kind) else rgb


def size_of(samples: Tensor | None, rgb: Tensor | None, form: LatentForm) -> PixelSize:
    """Size of the first picture, in whole cells of `form`; an uploaded one need not have the size on the page.

    Of the picture where there is one: another model may have made its latent, with other cells.
    """
    if rgb is not None:
        return whole_cells((rgb.shape[-1], rgb.shape[-2]), form.cell)
    assert samples is not None
    return form.size(samples)


@lru_cache(maxsize=4)
def hands_unit_range(kind: type) -> bool:
    """Whether the host's class `kind` clamps pictures before it hands them to `sample_hr_pass`, and not in it.

    Read from its source, where extensions that wrap its methods do not show. False where there is none.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    except (OSError, TypeError, SyntaxError):
        return False
    return _clamps(tree, "sample") and not _clamps(tree, "sample_hr_pass")


def _clamps(tree: ast.AST, method: str) -> bool:
    """Whether the method of this name calls something named clamp."""
    found = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == method)
    return any(
        isinstance(part, ast.Attribute) and part.attr == CLAMP for node in found for part in ast.walk(node)
    )
