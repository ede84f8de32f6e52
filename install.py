"""Run by the WebUI at every start. Everything ScaleDiff needs comes with the WebUI, so this only checks."""

import importlib.util

MISSING = [name for name in ("torch", "numpy") if importlib.util.find_spec(name) is None]
if MISSING:
    raise SystemExit(
        f"ScaleDiff needs {' and '.join(MISSING)}, which every Stable Diffusion WebUI brings along"
    )
