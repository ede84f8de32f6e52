"""The tiled VAE against the same VAE on the whole picture."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import torch
from small_vae import CHANNELS, FACTOR, small_vae, uneven
from torch import Tensor, nn

from scalediff.vae import tiled
from scalediff.vae.layers import Layers
from scalediff.vae.tiled import TiledVAE, is_out_of_memory, taken_by

CELLS = (17, 25)  # with tiles of 16: neither full nor equal ones


@pytest.fixture(scope="module", autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


@pytest.fixture
def vae() -> nn.Module:
    return small_vae()


def source(part: str, cells: tuple[int, int] = CELLS) -> Tensor:
    scale, channels = (FACTOR, 3) if part == "encoder" else (1, CHANNELS)
    return uneven(channels, cells[0] * scale, cells[1] * scale)


def in_tiles(vae: nn.Module, part: str, x: Tensor, *, tile: int = 16, **options) -> Tensor:
    with TiledVAE(vae, lambda half, size: tile, **options):
        return getattr(vae, part)(x)


def furthest(a: Tensor, b: Tensor) -> float:
    """Largest difference, in standard deviations of `b`."""
    return float((a.float() - b.float()).abs().max() / b.float().std())


class OwnNorms:
    """Stands for PictureNorms: every tile is normalised by itself, as tiling without more would do it."""

    def __init__(self, modules):
        self.place, self.patches = None, []

    def learn(self):
        pass


@pytest.mark.parametrize("part", ["encoder", "decoder"])
@pytest.mark.parametrize("cells", [CELLS, (16, 33)])
def test_tiles_give_the_untiled_result(vae, part, cells):
    x = source(part, cells)
    assert furthest(in_tiles(vae, part, x), getattr(vae, part)(x)) < 1e-4


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_norms_of_single_tiles_would_not(vae, part, monkeypatch):
    x = source(part)
    whole = getattr(vae, part)(x)
    fixed = furthest(in_tiles(vae, part, x), whole)
    monkeypatch.setattr(tiled, "PictureNorms", OwnNorms)
    plain = furthest(in_tiles(vae, part, x), whole)
    assert plain > 0.2
    assert plain > 1000 * fixed


@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_half_precision_is_off_by_its_own_rounding(vae, part):
    x = source(part)
    exact = getattr(vae, part)(x)
    vae.to(torch.bfloat16)
    whole, tiled = getattr(vae, part)(x.bfloat16()), in_tiles(vae, part, x.bfloat16())
    assert tiled.dtype == whole.dtype == torch.bfloat16
    assert (tiled.float() - exact).abs().mean() < 1.2 * (whole.float() - exact).abs().mean()


def test_pictures_of_a_batch_do_not_mix(vae):
    x = torch.cat([source("decoder"), -2 * source("decoder")])
    result = in_tiles(vae, "decoder", x)
    assert torch.equal(result[1:], in_tiles(vae, "decoder", x[1:]))


def test_the_pocket_vae_at_512_px():
    from pocket_webui.model.checkpoint import DEFAULT_CHECKPOINT, load_checkpoint
    from world.data import sample
    from world.scene import draw
    from world.texture import whole

    assert Path(DEFAULT_CHECKPOINT).is_file()
    first = load_checkpoint(DEFAULT_CHECKPOINT).first_stage_model
    picture = torch.from_numpy(draw(sample(3)[0], 3, whole(512))).float().permute(2, 0, 1)[None] * 2 - 1
    posterior = first.encode(picture)
    decoded = first.decode(posterior.mean)
    with TiledVAE(first, lambda half, size: 48):
        tiled = first.encode(picture)
        again = first.decode(posterior.mean)
    # measured: 7e-7 and 1e-4 of 255
    assert furthest(tiled.parameters, posterior.parameters) < 1e-5
    assert (again - decoded).abs().max() * 127.5 < 0.01
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        noise = posterior.sample()
        torch.manual_seed(1)
        assert furthest(tiled.sample(), noise) < 1e-5


def test_progress_counts_the_tiles(vae):
    told: list[tuple[int, int]] = []
    in_tiles(vae, "decoder", source("decoder"), report=lambda done, total: told.append((done, total)))
    layers = Layers(vae.decoder)
    tiles = 3 * 4
    assert {total for _, total in told} == {tiles}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (tiles, tiles)
    assert len(told) == tiles * sum(layers.passes(stretch) for stretch in layers.above)


def forwards(vae: nn.Module) -> dict[str, object]:
    return {name: m.__dict__["forward"] for name, m in vae.named_modules() if "forward" in m.__dict__}


@pytest.mark.parametrize("after", [0, 30])
@pytest.mark.parametrize("part", ["encoder", "decoder"])
def test_stopped_between_tiles_all_is_undone(vae, part, after):
    class StopError(BaseException):
        pass

    calls = iter(range(10**6))

    def report(done: int, total: int) -> None:
        if next(calls) == after:
            raise StopError

    x, before = source(part), getattr(vae, part)(source(part))
    with pytest.raises(StopError):
        in_tiles(vae, part, x, report=report)
    assert forwards(vae) == {}
    assert torch.equal(getattr(vae, part)(x), before)


def in_another_thread(work) -> None:
    def quietly() -> None:
        with torch.no_grad():
            work()

    thread = threading.Thread(target=quietly)
    thread.start()
    thread.join()


def test_another_thread_sees_the_vae_as_it_was(vae):
    """As for a live preview, which is decoded while a picture is: it's neither tiled nor can it be stopped."""
    x = source("decoder")
    expected, seen, reporting = vae.decoder(x), [], set()

    def report(done: int, total: int) -> None:
        reporting.add(threading.get_ident())
        if not seen:
            in_another_thread(lambda: seen.append(vae.decoder(x)))

    result = in_tiles(vae, "decoder", x, report=report)
    assert torch.equal(seen[0], expected)
    assert reporting == {threading.get_ident()}
    assert furthest(result, expected) < 1e-4
    assert forwards(vae) == {}


def test_two_threads_may_tile_one_vae(vae):
    x = source("decoder")
    expected, seen = vae.decoder(x), []

    def report(done: int, total: int) -> None:
        if not seen:
            in_another_thread(lambda: seen.append(in_tiles(vae, "decoder", x)))

    result = in_tiles(vae, "decoder", x, report=report)
    assert furthest(result, expected) < 1e-4
    assert torch.equal(seen[0], result)
    assert forwards(vae) == {}


def test_both_active_before_either_decodes(vae):
    x, barrier, seen = source("decoder"), threading.Barrier(2, timeout=60), []

    def job() -> None:
        with torch.no_grad(), TiledVAE(vae, lambda half, size: 16):
            barrier.wait()
            seen.append(vae.decoder(x))
            barrier.wait()

    threads = [threading.Thread(target=job) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 2
    assert torch.equal(*seen)
    assert forwards(vae) == {}


def test_the_inner_of_two_in_one_thread_counts(vae):
    x, told = source("decoder"), []
    outer = TiledVAE(vae, lambda half, size: 24, report=lambda done, total: told.append("outer"))
    inner = TiledVAE(vae, lambda half, size: 16, report=lambda done, total: told.append("inner"))
    with outer, inner:
        result = vae.decoder(x)
    assert set(told) == {"inner"}
    assert torch.equal(result, in_tiles(vae, "decoder", x))


class TilesOfTheirs:
    """What multidiffusion-upscaler's Tiled VAE puts on a half: small maps go through, large ones layer by layer."""

    def __init__(self, net: nn.Module) -> None:
        self.net, self.calls = net, 0
        if not hasattr(net, "original_forward"):
            net.original_forward = net.forward
        net.forward = self

    def __call__(self, x: Tensor) -> Tensor:
        self.calls += 1
        if max(x.shape[-2:]) <= 12:
            return self.net.original_forward(x)
        left, right = x.tensor_split(2, dim=-1)
        return torch.cat([self.net.original_forward(left), self.net.original_forward(right)], dim=-1)

    def leave(self) -> None:
        self.net.forward = self.net.original_forward


def test_a_half_that_somebody_else_runs_is_left_to_them(vae, caplog):
    x, whole = source("decoder"), vae.decoder(source("decoder"))
    theirs = TilesOfTheirs(vae.decoder)
    expected = vae.decoder(x)
    with caplog.at_level("DEBUG", logger="scalediff"):
        assert torch.equal(in_tiles(vae, "decoder", x), expected)
    assert "TilesOfTheirs" in caplog.text
    assert theirs.calls == 2
    assert vae.decoder.__dict__["forward"] is theirs
    assert furthest(in_tiles(vae, "encoder", source("encoder")), vae.encoder(source("encoder"))) < 1e-4
    theirs.leave()
    assert taken_by(vae.decoder) is None
    told: list[int] = []
    result = in_tiles(vae, "decoder", x, report=lambda done, total: told.append(done))
    assert told
    assert furthest(result, whole) < 1e-4


def test_a_forward_of_somebody_elses_on_the_class_is_left_to_them(vae, monkeypatch):
    monkeypatch.setattr(type(vae.decoder), "forward", lambda self, x: x * 2)
    x = source("decoder")
    assert torch.equal(in_tiles(vae, "decoder", x), x * 2)


def test_convolutions_that_somebody_replaced_run_whole(vae):
    """Extensions that let pictures wrap around in one direction only put their own on every convolution."""
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            module._conv_forward = lambda x, weight, bias, m=module: nn.Conv2d._conv_forward(
                m, x, weight, bias
            )
    x = source("decoder")
    assert torch.equal(in_tiles(vae, "decoder", x), vae.decoder(x))


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    ],
)
def test_out_of_memory_leads_to_tiles(vae, error):
    x = source("decoder", (12, 64))
    widths: list[int] = []

    def hungry(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        widths.append(args[0].shape[-1])
        if args[0].shape[-1] == 64 * FACTOR:
            raise error

    hook = vae.decoder.conv_out.register_forward_pre_hook(hungry)
    with TiledVAE(vae, lambda half, size: None):
        result = vae.decoder(x)
    hook.remove()
    assert widths[0] == 64 * FACTOR > max(widths[1:])
    assert furthest(result, vae.decoder(x)) < 1e-4
    assert forwards(vae) == {}


def test_out_of_memory_in_a_tile_leads_to_smaller_ones(vae):
    x = source("decoder", (12, 64))
    widths: list[int] = []

    def hungry(module: nn.Module, args: tuple[Tensor, ...]) -> None:
        widths.append(args[0].shape[-1])
        if args[0].shape[-1] > 24 * FACTOR:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    hook = vae.decoder.conv_out.register_forward_pre_hook(hungry)
    with TiledVAE(vae, lambda half, size: 48):
        result = vae.decoder(x)
    hook.remove()
    assert max(widths) > 24 * FACTOR
    assert furthest(result, vae.decoder(x)) < 1e-4


def test_other_errors_and_the_last_out_of_memory_pass_through(vae):
    def failing(error: Exception):
        def hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            raise error

        return hook

    for error in (ValueError("a bug"), torch.cuda.OutOfMemoryError("CUDA out of memory")):
        hook = vae.decoder.conv_out.register_forward_pre_hook(failing(error))
        with pytest.raises(type(error)), TiledVAE(vae, lambda half, size: 32):
            vae.decoder(source("decoder", (12, 64)))
        hook.remove()
        assert forwards(vae) == {}


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.cuda.OutOfMemoryError("x"), True),
        (MemoryError(), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_which_errors_mean_memory(error, expected):
    assert is_out_of_memory(error) is expected


def test_what_cannot_be_tiled_runs_whole(vae):
    x = source("encoder")[..., :-1]  # not whole cells
    assert torch.equal(in_tiles(vae, "encoder", x), vae.encoder(x))
    small = source("decoder", (16, 9))
    assert torch.equal(in_tiles(vae, "decoder", small), vae.decoder(small))
    other = nn.Module()
    other.decoder = nn.Conv2d(CHANNELS, 3, 3, padding=1)
    assert torch.equal(in_tiles(other, "decoder", small), other.decoder(small))


def test_pictures_that_wrap_around_run_whole(vae):
    for module in vae.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    x = source("decoder")
    assert torch.equal(in_tiles(vae, "decoder", x), vae.decoder(x))
