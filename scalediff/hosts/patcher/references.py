"""Editing models take what was encoded last for a picture of the user's, to be shown to the model.

Neo 2.26: `encode_first_stage` of Kontext, FLUX.2 and Qwen-Image-Edit keeps it as `ini_latent`, which the next
positive prompt makes a reference (backend/diffusion_engine/flux.py:75-79, 97), Anima's among the references
themselves (anima.py:61). The host clears the first after each encode of a second pass (modules/processing.py:1453).

In img2img the init picture so becomes a reference of the target's size. The stages start from it and hold on to it
by other means, and reference tokens cannot be windowed: while they run it is none, as in the host's second pass.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

WAITING = "ini_latent"  # on the host's model
IN_USE = "ref_latents"  # on the arguments of the model calls, and the user's own on the host's model


@contextmanager
def references_kept(sd_model: Any) -> Iterator[None]:
    """The references are afterwards what they were, whatever is encoded inside the `with`."""
    arguments = _arguments()
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


@contextmanager
def init_picture_left_out(sd_model: Any) -> Iterator[None]:
    """Inside the `with` the init picture of img2img is none of the references in use; the user's own stay.

    Where the prompt itself was read with the picture (Qwen-Image-Edit: `edit`) it stays, too.
    """
    arguments = _arguments()
    in_use, own = getattr(arguments, IN_USE, None), getattr(sd_model, IN_USE, None)
    if getattr(arguments, "edit", False) or not in_use or own is None or len(in_use) != len(own) + 1:
        yield
        return
    setattr(arguments, IN_USE, list(in_use[1:]))  # it is put in front (flux2.py:48)
    try:
        yield
    finally:
        setattr(arguments, IN_USE, in_use)


def _arguments() -> Any:
    """What Neo hands to every model call; None on other hosts."""
    return getattr(sys.modules.get("backend.args"), "dynamic_args", None)
