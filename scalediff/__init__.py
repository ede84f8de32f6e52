"""ScaleDiff (arXiv 2510.25818): high-resolution sampling with an unchanged diffusion model.

The package holds the method alone and imports no host: torch and the standard library are enough.
`docs/architecture.md` says what each module does.
"""

__version__ = "0.1.0"
