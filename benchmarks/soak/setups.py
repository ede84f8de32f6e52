"""What the jobs of a campaign run on: which kind of host and network, in which number types."""

from __future__ import annotations

from typing import NamedTuple

from benchmarks.soak.patcher import FLUX, UNET

BLOCK = 25  # jobs one after another on one model: loading another takes as long as a job


class Setup(NamedTuple):
    """Network and host, and the number types of network and VAE by the names of `boot.PRECISIONS`."""

    family: str
    unet: str
    vae: str

    def __str__(self) -> str:
        types = self.unet if self.unet == self.vae else f"{self.unet}, VAE {self.vae}"
        return f"{self.family}, {types}"


LDM = "ldm UNet"
SETUPS = (
    Setup(LDM, "fp32", "fp32"),
    Setup(UNET, "fp32", "fp32"),
    Setup(LDM, "bf16", "bf16"),
    Setup(FLUX, "fp32", "fp32"),
    Setup(LDM, "fp16", "fp32"),
    Setup(UNET, "fp16", "fp16"),
    Setup(LDM, "fp32", "fp32"),
    Setup(FLUX, "bf16", "fp32"),
)


def setup_of(number: int) -> Setup:
    """The setup of a job: all of them in turn, so that any few hundred jobs meet each."""
    return SETUPS[number // BLOCK % len(SETUPS)]
