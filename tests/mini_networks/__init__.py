"""Tiny networks of today's families, written for these tests, with the calling conventions of Forge Neo 2.26.

Each module stands for one of the host's (`AS`), so the functions that the layers call are its globals. What a module
shares with the host's is only what an extension can meet: names, shapes and order of the tokens, and who turns q and
k. `MODULES` lists them by family.
"""

from mini_networks import anima, ernie, klein, krea, lumina, qwen, wan

MODULES = {
    "anima": anima,
    "ernie": ernie,
    "klein": klein,
    "krea": krea,
    "lumina2": lumina,
    "qwen": qwen,
    "wan": wan,
    "zimage": lumina,
}
