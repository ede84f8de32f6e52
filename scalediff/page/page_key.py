"""The key by which our page asks for its line.

A WebUI may want a name and a password from API clients (`--api-auth`) that its own page does not have: a browser would
ask the user for them. Whoever was shown the page may ask what a job costs, so the page carries a key of this process.
"""

import secrets

KEY = secrets.token_urlsafe(16)
HEADER = "X-ScaleDiff-Page"


def opens(given: str | None) -> bool:
    """Whether `given` is the key, compared in constant time."""
    return secrets.compare_digest((given or "").encode(), KEY.encode())
