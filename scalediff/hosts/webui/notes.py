"""What the user is told beside the picture: why the ordinary one was made, or that something was left out."""

import logging
from typing import Any

from scalediff.settings import infotext
from scalediff.settings.infotext import NOTE_KEY

log = logging.getLogger("scalediff")


def refuse(p: Any, reason: str) -> None:
    """Tell the user under the picture why the ordinary one is made, and keep our name out of its metadata."""
    infotext.remove(p.extra_generation_params)
    sentence = reason if reason.startswith("ScaleDiff") else f"ScaleDiff was not applied: {reason}"
    tell(p, f"{sentence}. The ordinary picture was made.")
    log.info("not applied: %s", reason)


def tell(p: Any, sentence: str) -> None:
    """A sentence for the page, which shows comments, and for the API, which only answers with parameters."""
    p.comment(sentence)
    p.extra_generation_params[NOTE_KEY] = sentence
