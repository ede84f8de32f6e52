"""Which WebUI this is, told by the folders that it has, never by its name or version."""

import logging
from functools import lru_cache
from pathlib import Path

from scalediff.hosts.webui.host import WebUIHost

log = logging.getLogger("scalediff")

FORGE, LDM_PATCHED, A1111 = "forge", "ldm_patched", "a1111"


def dialect(root: Path) -> tuple[str, str]:
    """(adapter, why) for the WebUI whose files lie in `root`."""
    if (root / "backend" / "patcher" / "unet.py").is_file():
        return FORGE, "backend/patcher/unet.py is there (Forge, Neo)"
    if (root / "modules_forge").is_dir() and (root / "ldm_patched").is_dir():
        return LDM_PATCHED, "modules_forge and ldm_patched are there (reForge, Classic)"
    return A1111, "there is neither backend/patcher nor ldm_patched"


@lru_cache(maxsize=1)
def host_class() -> type[WebUIHost]:
    """The adapter for the WebUI that runs us; only that one is imported."""
    from modules import paths_internal

    name, why = dialect(Path(paths_internal.script_path))
    log.info("host adapter: %s, because %s", name, why)
    if name == FORGE:
        from scalediff.hosts.patcher.forge import ForgeHost

        return ForgeHost
    if name == LDM_PATCHED:
        from scalediff.hosts.patcher.ldm_patched import LdmPatchedHost

        return LdmPatchedHost
    from scalediff.hosts.a1111.host import A1111Host

    return A1111Host
