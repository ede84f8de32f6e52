"""What we set on a job `p`, remembered: a job that is refused after all is the job that it was before."""

from typing import Any

ATTRIBUTE = "_scalediff_changes"
ANY = object()  # in place of our value: the host derives its own from what we set


def change(p: Any, **values: Any) -> None:
    """Set attributes of `p` until `take_back`."""
    for name, value in values.items():
        _remember(p, name, value)
        setattr(p, name, value)


def remember(p: Any, *names: str) -> None:
    """Attributes that the host will fill in because of what we `change`."""
    for name in names:
        if hasattr(p, name):
            _remember(p, name, ANY)


def changed(p: Any, name: str) -> bool:
    """Whether the value that `p.name` has is ours."""
    return name in p.__dict__.get(ATTRIBUTE, {})


def take_back(p: Any) -> set[str]:
    """Put the old values back, but where somebody has set another since; names of what is as before again.

    May be called any number of times, on copies of `p` too.
    """
    changes = p.__dict__.pop(ATTRIBUTE, {})
    ours = {name for name, (_, value) in changes.items() if value is ANY or getattr(p, name) == value}
    for name in ours:
        setattr(p, name, changes[name][0])
    return ours


def _remember(p: Any, name: str, value: Any) -> None:
    changes = p.__dict__.get(ATTRIBUTE, {})
    before = changes[name][0] if name in changes else getattr(p, name)
    # a new dict: the cells of a plot are shallow copies of one `p`
    setattr(p, ATTRIBUTE, {**changes, name: (before, value)})
