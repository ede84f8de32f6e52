"""Mirrors modules/extra_networks.py: `<name:arg:arg>` tags in prompts, and the registered networks they
address."""

from __future__ import annotations

import logging
import re
from collections import defaultdict
from typing import Any

from modules import errors

extra_network_registry: dict[str, ExtraNetwork] = {}
extra_network_aliases: dict[str, ExtraNetwork] = {}
re_extra_net = re.compile(r"<(\w+):([^>]+)>")
log = logging.getLogger("pocket_webui")


class ExtraNetworkParams:
    """Arguments of one tag: `items` as written, split into `positional` and `named` (key=value)."""

    def __init__(self, items: list | None = None) -> None:
        self.items = items or []
        self.positional: list = []
        self.named: dict[str, str] = {}
        for item in self.items:
            key, sep, value = item.partition("=") if isinstance(item, str) else ("", "", "")
            if sep:
                self.named[key] = value
            else:
                self.positional.append(item)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ExtraNetworkParams) and self.items == other.items

    def __hash__(self) -> int:
        return hash(tuple(self.items))


class ExtraNetwork:
    """A kind of network addressed by `<name:...>`."""

    def __init__(self, name: str) -> None:
        self.name = name

    def activate(self, p: Any, params_list: list[ExtraNetworkParams]) -> None:
        """Replaces all earlier effects; called with an empty list where the prompt has no tag."""
        raise NotImplementedError

    def deactivate(self, p: Any) -> None:
        """Called when the job is over."""
        raise NotImplementedError


def initialize() -> None:
    extra_network_registry.clear()
    extra_network_aliases.clear()


def register_extra_network(extra_network: ExtraNetwork) -> None:
    extra_network_registry[extra_network.name] = extra_network


def register_extra_network_alias(extra_network: ExtraNetwork, alias: str) -> None:
    extra_network_aliases[alias] = extra_network


def lookup_extra_networks(extra_network_data: dict) -> dict[ExtraNetwork, list[ExtraNetworkParams]]:
    """Registered networks that the data mention, with their arguments; unknown names are logged and left
    out."""
    found: dict[ExtraNetwork, list[ExtraNetworkParams]] = {}
    for name, params in list((extra_network_data or {}).items()):
        network = extra_network_registry.get(name) or extra_network_aliases.get(name)
        if network is None:
            log.info("Skipping unknown extra network: %s", name)
            continue
        found.setdefault(network, []).extend(params)
    return found


def activate(p: Any, extra_network_data: dict) -> None:
    """Activates mentioned networks with their arguments and all others with none; then tells the scripts."""
    mentioned = lookup_extra_networks(extra_network_data)
    rest = [network for network in extra_network_registry.values() if network not in mentioned]
    for network, params in [*mentioned.items(), *((network, []) for network in rest)]:
        try:
            network.activate(p, params)
        except Exception as error:
            errors.display(error, f"activating extra network {network.name} with arguments {params}")
    if p.scripts is not None:
        p.scripts.after_extra_networks_activate(
            p,
            batch_number=p.iteration,
            prompts=p.prompts,
            seeds=p.seeds,
            subseeds=p.subseeds,
            extra_network_data=extra_network_data,
        )


def deactivate(p: Any, extra_network_data: dict) -> None:
    mentioned = lookup_extra_networks(extra_network_data)
    rest = [network for network in extra_network_registry.values() if network not in mentioned]
    for network in [*mentioned, *rest]:
        try:
            network.deactivate(p)
        except Exception as error:
            errors.display(error, f"deactivating extra network {network.name}")


def parse_prompt(prompt: str) -> tuple[str, dict[str, list[ExtraNetworkParams]]]:
    """The prompt without its tags, and the tags by name."""
    data: dict[str, list[ExtraNetworkParams]] = defaultdict(list)

    def take(match: re.Match) -> str:
        data[match.group(1)].append(ExtraNetworkParams(items=match.group(2).split(":")))
        return ""

    return re_extra_net.sub(take, prompt), data


def parse_prompts(prompts: list[str]) -> tuple[list[str], dict | None]:
    """Prompts without tags, and the tags of the first one, which count for the batch."""
    parsed = [parse_prompt(prompt) for prompt in prompts]
    return [text for text, _ in parsed], parsed[0][1] if parsed else None
