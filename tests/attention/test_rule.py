"""Which way a call is computed: the rows of the rule's table, on GPUs that are only claimed."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from scalediff.attention import launch, rule, windows
from scalediff.attention.batched import attend_windows_batched, least_bytes
from scalediff.attention.joint import joint_neighborhood_attention
from scalediff.attention.log import log_once
from scalediff.attention.rotary import axial_table
from scalediff.attention.rule import backend_of, own_kernel
from scalediff.attention.strips import by_patches
from scalediff.attention.windows import neighborhood_attention
from scalediff.method.geometry import window_layout

SDPA = F.scaled_dot_product_attention
GRID, WINDOW = (24, 40), (16, 16)


def a_kernel_of_the_hosts(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return SDPA(q, k, v)


class OnGpu:
    """What the rule looks at of a tensor."""

    def __init__(self, *, device: str = "cuda", dtype: torch.dtype = torch.float16, dim: int = 64) -> None:
        self.device, self.dtype, self.shape, self.requires_grad = (
            torch.device(device),
            dtype,
            (2, 10, 64, dim),
            False,
        )


@pytest.fixture(params=[True, False], ids=["with our kernel", "without"])
def has_kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    kernel = SimpleNamespace(available=lambda device, dtype, head_dim: True)
    monkeypatch.setattr(rule, "own_kernel", lambda: kernel if request.param else None)
    return request.param


@pytest.mark.parametrize(
    ("tensor", "call", "with_kernel", "without"),
    [
        ({}, {}, "kernel", "batched"),
        ({}, {"attend": SDPA}, "kernel", "batched"),
        ({"dtype": torch.bfloat16, "dim": 160}, {}, "kernel", "batched"),
        ({"dtype": torch.float32}, {}, "batched", "batched"),
        ({"dim": 16}, {}, "batched", "batched"),
        ({"dim": 256}, {}, "batched", "batched"),
        ({"dim": 512}, {}, "patches", "patches"),  # a VAE's
        ({}, {"memory_for_batched": lambda: False}, "kernel", "patches"),
        ({}, {"with_text": True}, "kernel", "batched"),
        ({}, {"with_text": True, "kernel_knows": False}, "batched", "batched"),
        ({}, {"with_text": True, "memory_for_batched": lambda: False}, "kernel", "patches"),
        ({}, {"attend": a_kernel_of_the_hosts}, "batched", "batched"),  # sage
        ({}, {"attend": a_kernel_of_the_hosts, "with_text": True}, "batched", "batched"),
        ({}, {"attend": a_kernel_of_the_hosts, "exact": True}, "kernel", "batched"),
        ({}, {"attend": a_kernel_of_the_hosts, "exact": True, "with_text": True}, "kernel", "batched"),
        ({}, {"choice": "host"}, "batched", "batched"),
        ({}, {"choice": "host", "attend": a_kernel_of_the_hosts, "exact": True}, "batched", "batched"),
        ({}, {"choice": "patches"}, "patches", "patches"),
        ({"device": "cpu"}, {}, "patches", "patches"),
        ({"device": "mps"}, {}, "patches", "patches"),
    ],
)
def test_the_rows_of_the_table(
    tensor: dict[str, Any], call: dict[str, Any], with_kernel: str, without: str, has_kernel: bool
) -> None:
    q = OnGpu(**tensor)
    assert backend_of(q, q, q, **{"attend": None, **call}) == (with_kernel if has_kernel else without)


def test_gradients_are_for_calls_patch_by_patch(has_kernel: bool) -> None:
    q, trained = OnGpu(), OnGpu()
    trained.requires_grad = True
    assert backend_of(q, q, trained, attend=None) == "patches"
    with torch.no_grad():
        assert backend_of(q, q, trained, attend=None) != "patches"


def test_our_kernel_takes_one_type_only(has_kernel: bool) -> None:
    q = OnGpu()
    assert backend_of(q, q, OnGpu(dtype=torch.bfloat16), attend=None) == "batched"


def test_attention_that_another_extension_has_put_in_torchs_place_is_kept(
    has_kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    q = OnGpu()
    monkeypatch.setattr(F, "scaled_dot_product_attention", lambda q, k, v: v)
    for attend in (None, F.scaled_dot_product_attention):
        for exact in (False, True):  # which speaks of the host's own kernel
            assert backend_of(q, q, q, attend=attend, exact=exact) == "batched"


@pytest.mark.parametrize(
    ("card", "said"),
    [
        ("ROCm", "has not been measured"),
        ("Turing", "compute capability 8.0"),
        ("without Triton", "Triton is not installed"),
    ],
)
def test_cards_that_our_kernel_does_not_run_on(
    card: str, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scalediff")
    monkeypatch.setattr(torch.version, "hip", "6.2" if card == "ROCm" else None)
    capability = (7, 5) if card == "Turing" else (9, 0)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(launch, "find_spec", lambda name: None if card == "without Triton" else object())
    launch._obstacle.cache_clear()
    rule._log_kind.cache_clear()
    try:
        for _ in range(2):
            assert backend_of(OnGpu(), OnGpu(), OnGpu(), attend=None) == "batched"
    finally:
        launch._obstacle.cache_clear()
    first, second = (record.getMessage() for record in caplog.records)
    assert said in first
    assert second.endswith(": batched")


def test_a_kernel_that_did_not_compile_is_not_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(launch, "find_spec", lambda name: object())
    failed: dict[object, str] = {}
    monkeypatch.setattr(launch, "_failed", failed)
    launch._obstacle.cache_clear()
    try:
        q = OnGpu()
        assert backend_of(q, q, q, attend=None) == "kernel"
        failed[launch._kind(torch.device("cuda", 0), torch.float16, 64)] = "no C compiler"
        assert backend_of(q, q, q, attend=None) == "batched"
    finally:
        launch._obstacle.cache_clear()


@pytest.mark.parametrize("call", [neighborhood_attention, joint_neighborhood_attention])
def test_an_unknown_choice_is_named(call: Any) -> None:
    q = torch.zeros(1, 1, 16, 8)
    more = {"text_length": 0} if call is joint_neighborhood_attention else {}
    with pytest.raises(
        ValueError, match='choice must be "auto", "host" or "patches", got "fast"'.replace('"fast"', "'fast'")
    ):
        call(q, q, q, (4, 4), (2, 2), choice="fast", **more)


def test_a_line_in_the_log_for_each_kind_of_call_on_a_gpu(
    has_kernel: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scalediff")
    rule._log_kind.cache_clear()
    for tensor in ({}, {}, {"dim": 512}, {"device": "cpu"}):
        q = OnGpu(**tensor)
        backend_of(q, q, q, attend=None)
    backend = "kernel" if has_kernel else "batched"
    assert [record.getMessage() for record in caplog.records] == [
        f"windowed attention, heads of 64 in torch.float16: {backend}",
        "windowed attention, heads of 512 in torch.float16: patches",
    ]


def qkv(text: int = 0) -> list[Tensor]:
    source = torch.Generator().manual_seed(0)
    return [torch.randn(2, 2, text + GRID[0] * GRID[1], 8, generator=source) for _ in range(3)]


@pytest.mark.parametrize("attend", [None, a_kernel_of_the_hosts])
def test_the_batched_way_is_taken_and_gives_the_same_bits(
    attend: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    q, k, v = qkv()
    offsets = [(0, 0), (3, 5)]
    expected = neighborhood_attention(q, k, v, GRID, WINDOW, offset=offsets)
    seen = []

    def noted(*args: Any, **more: Any) -> Tensor:
        seen.append(more)
        return attend_windows_batched(*args, **more)

    monkeypatch.setattr(windows, "backend_of", lambda *args, **facts: "batched")
    monkeypatch.setattr(windows, "attend_windows_batched", noted)
    more = {"offset": offsets, "attend": attend, "room": 1 << 20}
    assert torch.equal(neighborhood_attention(q, k, v, GRID, WINDOW, **more), expected)
    assert seen == [more]


def test_where_not_even_one_column_of_patches_fits_they_run_one_by_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Claimed(Tensor):
        @property
        def device(self) -> torch.device:
            return torch.device("cuda")

    facts_seen = []

    def noted(*args: Any, memory_for_batched: Any, **facts: Any) -> str:
        facts_seen.append(memory_for_batched())
        return "patches"

    monkeypatch.setattr(windows, "backend_of", noted)
    monkeypatch.setattr(windows, "fill_within", lambda *args, **more: None)
    q = torch.zeros(2, 2, GRID[0] * GRID[1], 8).as_subclass(Claimed)
    least = least_bytes(q, GRID, WINDOW, (0, 0), a_kernel_of_the_hosts)
    for room in (None, least, least - 1):
        neighborhood_attention(q, q, q, GRID, WINDOW, attend=a_kernel_of_the_hosts, room=room)
    assert facts_seen == [True, True, False]


def test_where_memory_does_not_suffice_for_many_patches_they_run_one_by_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scalediff")
    log_once.cache_clear()

    def full(*args: Any, **more: Any) -> Tensor:
        raise torch.cuda.OutOfMemoryError("no room")

    q, k, v = qkv()
    monkeypatch.setattr(windows, "backend_of", lambda *args, **facts: "batched")
    monkeypatch.setattr(windows, "attend_windows_batched", full)
    expected = by_patches(q, k, v, window_layout(GRID, WINDOW), SDPA)
    for _ in range(2):
        assert torch.equal(neighborhood_attention(q, k, v, GRID, WINDOW), expected)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "patch by patch" in line


class KernelUnavailable(RuntimeError):  # noqa: N818
    """As our kernel raises it."""


class PlayedKernel:
    """Our kernel's public names; `calls` holds what they were given."""

    KernelUnavailable = KernelUnavailable

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, works: bool = True) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.works = works
        for module in ("windows", "joint"):
            monkeypatch.setattr(f"scalediff.attention.{module}.own_kernel", lambda: self)
            monkeypatch.setattr(f"scalediff.attention.{module}.backend_of", self.chosen)

    def chosen(self, *args: Any, kernel_knows: bool = True, with_text: bool = False, **facts: Any) -> str:
        return "kernel" if kernel_knows else "batched"

    def attend_windows(self, q: Tensor, k: Tensor, v: Tensor, *sizes: Any, offset: Any) -> Tensor:
        return self._call(v, *sizes, offset)

    def attend_joint(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *sizes: Any,
        text_length: int,
        rope: Any,
        text_rope: Any,
        halves: bool,
        offset: Any,
        room: Any,
    ) -> Tensor:
        return self._call(k, *sizes, text_length, rope, text_rope, halves, offset, room)

    def _call(self, result: Tensor, *given: Any) -> Tensor:
        self.calls.append(given)
        if not self.works:
            raise KernelUnavailable("no compiler")
        return result


def test_our_kernel_is_called_with_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = PlayedKernel(monkeypatch)
    offsets = [(1, 0), (0, 2)]
    q, k, v = qkv()
    assert neighborhood_attention(q, k, v, GRID, WINDOW, offset=offsets) is v
    q, k, v = qkv(text=3)
    rope, own = axial_table(GRID, (2, 2, 4)), axial_table((1, 3), (2, 2, 4))
    out = joint_neighborhood_attention(
        q, k, v, GRID, WINDOW, text_length=3, rope=rope, text_rope=own, halves=True, offset=offsets, room=9
    )
    assert out is k
    assert kernel.calls == [(GRID, WINDOW, offsets), (GRID, WINDOW, 3, rope, own, True, offsets, 9)]


def test_where_memory_does_not_suffice_our_kernel_runs_head_by_head(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = PlayedKernel(monkeypatch)
    rooms = []

    def attend_joint(q: Tensor, k: Tensor, v: Tensor, *sizes: Any, room: Any, **more: Any) -> Tensor:
        rooms.append(room)
        if room != 0 or len(rooms) > 2:
            raise torch.cuda.OutOfMemoryError("no room")
        return k

    monkeypatch.setattr(kernel, "attend_joint", attend_joint)
    q, k, v = qkv(text=3)
    assert joint_neighborhood_attention(q, k, v, GRID, WINDOW, text_length=3) is k
    assert rooms == [None, 0]
    with pytest.raises(torch.cuda.OutOfMemoryError):
        joint_neighborhood_attention(q, k, v, GRID, WINDOW, text_length=3)


def test_where_our_kernel_is_unavailable_the_other_ways_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    image, joint = qkv(), qkv(text=3)
    expected = (
        neighborhood_attention(*image, GRID, WINDOW),
        joint_neighborhood_attention(*joint, GRID, WINDOW, text_length=3),
    )
    kernel = PlayedKernel(monkeypatch, works=False)
    assert torch.equal(neighborhood_attention(*image, GRID, WINDOW), expected[0])
    found = joint_neighborhood_attention(*joint, GRID, WINDOW, text_length=3)
    torch.testing.assert_close(found, expected[1])  # the text's mean is added up in another order
    assert torch.equal(found[:, :, 3:], expected[1][:, :, 3:])
    assert len(kernel.calls) == 2


def test_a_kernel_that_does_not_know_the_card_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def available(*kind: Any) -> bool:
        asked.append(kind)
        return False

    monkeypatch.setattr(rule, "own_kernel", lambda: SimpleNamespace(available=available))
    q = OnGpu()
    assert backend_of(q, q, q, attend=None) == "batched"
    assert asked == [(torch.device("cuda"), torch.float16, 64)]


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (SimpleNamespace(), ""),
        (
            ImportError("no compiler\nsecond line"),
            "our attention kernel is not used: ImportError: no compiler",
        ),
        (ModuleNotFoundError("no triton", name="triton"), "no triton"),
        (ModuleNotFoundError("gone", name="scalediff.attention.kernel"), ""),
    ],
)
def test_a_kernel_that_cannot_be_imported_is_left_alone(
    module: Any, said: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "scalediff")

    def imported(name: str) -> Any:
        if isinstance(module, Exception):
            raise module
        return module

    monkeypatch.setattr(rule.importlib, "import_module", imported)
    own_kernel.cache_clear()
    for _ in range(2):
        assert own_kernel() is (None if isinstance(module, Exception) else module)
    own_kernel.cache_clear()
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == bool(said)
    assert all(said in line and "second" not in line for line in lines)
