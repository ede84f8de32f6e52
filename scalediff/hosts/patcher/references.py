"""Editing models take what was encoded last for a picture of the user's, to be shown to the model.

Neo 2.26: `encode_first_stage` of Kontext, FLUX.2 and Qwen-Image-Edit keeps it as `ini_latent`, which the next
positive prompt makes a reference (backend/diffusion_engine/flux.py:75-79, 97), Anima's among the references
themselves (anima.py:61). The host clears the first after each encode of a second pass (modules/processing.py:1453).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WAITING = "ini_latent"  # on the host's model
IN_USE = "ref_latents"  # on the arguments of the model calls


@contextmanager
def references_kept(sd_model: Any) -> Iterator[None]:
    """The references are afterwards what they were, whatever is encoded inside the `with`."""
    arguments = getattr(sys.modules.get("backend.args"), "dynamic_args", None)
    waiting, in_use = getattr(sd_model, WAITING, None), getattr(arguments, IN_USE, None)
    noted = list(in_use or ())
    try:
        yield
    finally:
        if hasattr(sd_model, WAITING):
            setattr(sd_model, WAITING, waiting)
        if in_use is not None:
            in_use[:] = noted
            setattr(arguments, IN_USE, in_use)
