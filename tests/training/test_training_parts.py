"""Schedule and weights of the velocity, the 8-bit form, Muon, and the pictures that are drawn on the way."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from pocket_webui.model.diffusion import scaled_linear_alphas_cumprod, without_terminal_signal
from pocket_webui.model.eight_bit import packed, unpacked
from training import unet
from training.bands import bands
from training.config import trained_config
from training.muon import Muon, orthogonalise
from training.pictures import CHUNK, Pictures, fill
from training.precision import bfloat16_pays
from training.schedule import alphas_cumprod, noised, weight
from training.vae import loss_of
from world.counter import count
from world.data import sample
from world.scene import GROUND, draw

PARAMS = trained_config()["model"]["params"]


def test_the_schedule_ends_without_signal_and_begins_as_stable_diffusions():
    usual = scaled_linear_alphas_cumprod(0.00085, 0.012, 1000)
    found = without_terminal_signal(usual)
    assert found[0] == pytest.approx(float(usual[0]), rel=1e-6)
    assert found[-1] < 1e-7
    assert bool((found.diff() < 0).all())
    assert torch.equal(found, alphas_cumprod(PARAMS))


def test_x0_and_noise_come_back_from_the_velocity():
    x0, noise, at = (
        torch.randn(3, 4, 2, 2),
        torch.randn(3, 4, 2, 2),
        alphas_cumprod(PARAMS)[[0, 400, 999]].view(-1, 1, 1, 1),
    )
    x, velocity = noised(x0, noise, at)
    torch.testing.assert_close(at.sqrt() * x - (1 - at).sqrt() * velocity, x0, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close((1 - at).sqrt() * x + at.sqrt() * velocity, noise, atol=1e-5, rtol=1e-5)


def test_the_last_timestep_weighs_and_the_first_do_not_rule():
    """min(SNR + 1, 5) / (SNR + 1), SNR = abar / (1 - abar)."""
    for abar, expected in ((0.0, 1.0), (0.5, 1.0), (0.75, 1.0), (0.8, 1.0), (0.99, 0.05)):
        assert float(weight(torch.tensor(abar, dtype=torch.float64))) == pytest.approx(expected, rel=1e-5)


def test_eight_bits_come_back_within_half_a_step():
    weights = {"a.weight": torch.randn(5, 3, 2, 2), "a.bias": torch.randn(5), "b.weight": torch.randn(4, 4)}
    kept = packed(weights, lambda name: name.startswith("a."))
    assert kept["a.weight"].dtype == torch.int8
    assert {kept[name].dtype for name in ("a.bias", "b.weight")} == {torch.half}
    back = unpacked(kept)
    assert set(back) == set(weights)
    half = weights["a.weight"].flatten(1).abs().amax(1) / 127 * 0.51
    assert bool(((back["a.weight"] - weights["a.weight"]).flatten(1).abs().amax(1) <= half).all())
    del kept["a.weight.step"]
    with pytest.raises(ValueError, match=r"a\.weight"):
        unpacked(kept)


def test_muon_orthogonalises_each_matrix_of_a_shape():
    made = orthogonalise(torch.randn(3, 6, 20))
    for matrix in made:
        singular = torch.linalg.svdvals(matrix)
        assert singular.min() > 0.6
        assert singular.max() < 1.3


def test_muons_ranks_do_together_what_one_does_alone(monkeypatch):
    shapes = [(4, 3, 3, 3), (4, 27), (4, 3, 3, 3), (8, 4)]
    start = [torch.randn(shape) for shape in shapes]
    grads = [torch.randn(shape) for shape in shapes]

    def stepped(rank: int, ranks: int) -> list[torch.Tensor]:
        params = [torch.nn.Parameter(p.clone()) for p in start]
        for p, grad in zip(params, grads):
            p.grad = grad.clone()
        monkeypatch.setattr("training.muon._summed", lambda updates: updates)
        Muon(params, lr=0.1, rank=rank, ranks=ranks).step()
        return [(p - before).detach() for p, before in zip(params, start)]

    alone = stepped(0, 1)
    for whole, one, other in zip(alone, stepped(0, 2), stepped(1, 2)):
        assert bool(whole.any())
        torch.testing.assert_close(one + other, whole, atol=1e-2, rtol=2e-2)  # bfloat16 inside


def test_softness_costs_more_than_the_same_error_elsewhere():
    """The autoencoder's loss: of two errors of one size, the one that takes the finest band away is dearer."""
    true = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)).clamp(-1, 1)
    fine = bands(true, 1)[0]

    class Fixed(torch.nn.Module):
        def __init__(self, made):
            super().__init__()
            self.made = made

        def forward(self, x):
            return self.made, torch.zeros(1), torch.zeros(1)

    level = 0.5 * float((fine**2).mean().sqrt())  # as large in the mean square
    soft, tinted = true - 0.5 * fine, true + level
    assert (soft - true).abs().mean() < (tinted - true).abs().mean()
    assert loss_of(Fixed(soft), true) > 1.2 * loss_of(Fixed(tinted), true)
    assert float(loss_of(Fixed(true), true)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("step", "first"), [(0, 8), (300, unet.AGAIN)])
def test_a_run_that_goes_on_encodes_more_before_it_learns(monkeypatch, step, first):
    encoded = []

    class Counted:
        count = 0

        def encode(self, count):
            encoded.append(count)
            self.count += count

        def batch(self, size, generator):
            return torch.zeros(size), torch.zeros(size)

    monkeypatch.setattr(unet, "loss_of", lambda *given: torch.zeros(()))
    loss = unet.losses(SimpleNamespace(step=step, rank=0, model=None), Counted(), "cpu")
    for _ in range(3):
        loss(8)
    assert encoded == [first, 2, 2]


@pytest.mark.parametrize("without_gradients", [torch.no_grad, torch.inference_mode])
def test_the_precision_may_first_be_asked_for_where_gradients_are_off(without_gradients):
    bfloat16_pays.cache_clear()
    with without_gradients():
        assert bfloat16_pays("cpu") in (True, False)


def test_pictures_are_drawn_once_and_in_turn(tmp_path):
    pictures = Pictures(tmp_path, 2 * CHUNK)
    assert pictures.ready == 0
    pictures.done[0] = 1  # an earlier run drew these
    fill(tmp_path, 2 * CHUNK, 0, 2)
    assert pictures.ready == CHUNK
    assert not pictures.pixels[0].any()
    fill(tmp_path, 2 * CHUNK, 1, 2)
    assert pictures.ready == 2 * CHUNK
    caption, view = sample(CHUNK)
    expected = (draw(caption, CHUNK, view) * 255 + 0.5).astype(np.uint8)
    assert np.array_equal(Pictures(tmp_path, 2 * CHUNK).pixels[CHUNK], expected)


def test_plain_pictures_are_whole_scenes_over_one_colour(tmp_path):
    fill(tmp_path, CHUNK, 0, 1, True)
    pictures = Pictures(tmp_path, CHUNK, plain=True)
    for index in range(CHUNK):
        caption, view = pictures.shown(index)
        assert (caption.close, view.side) == (False, 1)
        corner = pictures.pixels[index, :4, :4].reshape(-1, 3).astype(int)
        middle = np.array(GROUND[caption.ground_colour][1]) * 255
        assert np.ptp(corner, axis=0).max() <= 8
        assert np.abs(corner - middle).max() < 60  # the object's shadow is all that darkens it
        assert count(pictures.pixels[index]).objects == 1


def test_waiting_for_pictures_that_nobody_draws_ends(tmp_path, monkeypatch):
    monkeypatch.setattr("training.pictures.PATIENCE_SECONDS", 0)
    with pytest.raises(RuntimeError, match="does anybody draw"):
        Pictures(tmp_path, CHUNK).wait(1)
