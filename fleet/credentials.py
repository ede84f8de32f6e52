"""Names and passwords for WebUIs started with --api-auth. They come from the environment and are shown nowhere."""

from __future__ import annotations

from collections.abc import Mapping

VARIABLE = "FLEET_API_AUTH"


class Credentials:
    """Name and password of one WebUI; what is printed of it tells neither."""

    def __init__(self, name: str, password: str) -> None:
        self._pair = (name, password)

    def pair(self) -> tuple[str, str]:
        """(name, password), for the request alone."""
        return self._pair

    def __repr__(self) -> str:
        return "Credentials(...)"


def from_environment(environment: Mapping[str, str], count: int) -> list[Credentials | None]:
    """For each of `count` WebUIs: those in FLEET_API_AUTH_1, _2, ... by its place, else those in FLEET_API_AUTH.

    ValueError for a text that is not name:password.
    """
    found: list[Credentials | None] = []
    for number in range(1, count + 1):
        variable = f"{VARIABLE}_{number}" if f"{VARIABLE}_{number}" in environment else VARIABLE
        text = environment.get(variable)
        if text is None:
            found.append(None)
            continue
        name, colon, password = text.partition(":")
        if not (name and colon):
            raise ValueError(f"{variable} must be name:password")
        found.append(Credentials(name, password))
    return found
