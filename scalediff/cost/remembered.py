"""Numbers read off a network's layers, worked out once for as long as the network has these layers.

To look through SDXL's UNet takes a second, and the page's line asks while the user moves a slider.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from threading import Lock
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from torch import nn

T = TypeVar("T")
MOST = 256  # numbers kept for each network: clients ask for sizes without end

_known: WeakKeyDictionary[nn.Module, tuple[int, dict[Hashable, Any]]] = WeakKeyDictionary()
_lock = Lock()


def remembered(network: nn.Module, name: Hashable, make: Callable[[], T]) -> T:
    """What `make` gave for this network under `name`; made again once a layer was replaced by another.

    The result must hold no part of the network, which would then never be freed. An error of `make` is not kept.
    """
    layers = hash(tuple(map(id, network.modules())))
    with _lock:
        found = _known.get(network)
        if found is None or found[0] != layers:
            found = _known[network] = (layers, {})
        values = found[1]
        if name in values:
            return values[name]
    value = make()
    with _lock:
        while len(values) >= MOST:
            del values[next(iter(values))]
        values[name] = value
    return value
