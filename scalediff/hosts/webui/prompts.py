"""The prompt of the stages, where everybody looks for the prompt of that pass: host and other extensions alike.

The hosts split each batch's prompts into text and tags of LoRA (`p.parse_extra_network_prompts`), tell the scripts
(`process_batch`, where NegPiP reads negative weights and takes them out), and make the conditioning from what the
job then has: `hr_prompts` for a second pass, `prompts` for img2img, whose only pass the stages are. So the prompt
of the stages is put there, just after that split (Automatic1111 modules/processing.py:957-966). What infotext says
of the job's own prompts comes from `all_prompts` and `all_hr_prompts`, which are left alone.
"""

import logging
from typing import Any

from modules import devices, extra_networks, shared

from scalediff.hosts.webui.job_record import JobRecord
from scalediff.hosts.webui.notes import tell
from scalediff.hosts.webui.replace import original, replace

log = logging.getLogger("scalediff")

PARSE = "parse_extra_network_prompts"


def hand_over(p: Any, record: JobRecord) -> None:
    """Let the pass of the stages have their prompt, with the page's styles. A Hires prompt goes first."""
    text = record.config.upscale_prompt
    if not text:
        return
    if getattr(p, "hr_prompt", "") not in (None, "", p.prompt):
        record.mark_unused("upscale_prompt")
        return
    prompt = shared.prompt_styles.apply_styles_to_prompt(text, p.styles or [])
    texts, networks = _names(p)

    def parse_extra_network_prompts() -> Any:
        result = original(p, PARSE, parse_extra_network_prompts)()
        record.own_texts = {name: getattr(p, name) for name in (texts, networks)}
        prompts, tags = extra_networks.parse_prompts([prompt] * len(getattr(p, texts)))
        setattr(p, texts, prompts)
        setattr(p, networks, tags)
        return result

    replace(p, PARSE, parse_extra_network_prompts)
    _keep_picture(p, record, "calculate_hr_conds" if getattr(p, "enable_hr", False) else "setup_conds")


def take_back(p: Any, record: JobRecord) -> bool:
    """The job's own prompts for this batch; False where nothing was handed over. Conditioning is not made anew."""
    if not record.own_texts:
        return False
    for name, value in record.own_texts.items():
        setattr(p, name, value)
    record.own_texts = {}
    record.mark_unused("upscale_prompt")
    if getattr(p, "enable_hr", False):
        p.hr_c = p.hr_uc = None  # the host makes it anew where it is missing
    return True


def activate_networks(p: Any) -> None:
    """LoRA and the like as the pass of the stages names them now."""
    if not p.disable_extra_networks:
        with devices.autocast():
            extra_networks.activate(p, getattr(p, _names(p)[1]))


def _names(p: Any) -> tuple[str, str]:
    """Where `p` has the texts of the pass that the stages are, and the tags in them."""
    if getattr(p, "enable_hr", False):
        return "hr_prompts", "hr_extra_network_data"
    return "prompts", "extra_network_data"


def _keep_picture(p: Any, record: JobRecord, name: str) -> None:
    """A prompt of the stages that the host cannot use is told of, and the job goes on with its own."""

    def make_conditioning() -> None:
        ordinary = original(p, name, make_conditioning)
        try:
            ordinary()
        except Exception as error:  # the hosts' parsers and text encoders raise whatever they like
            if not take_back(p, record):
                raise
            log.warning("the prompt of the stages could not be used", exc_info=True)
            tell(p, f"ScaleDiff kept the prompt in its stages: the one for them could not be used ({error}).")
            activate_networks(p)
            ordinary()

    replace(p, name, make_conditioning)
