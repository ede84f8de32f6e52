"""The model: genuine ldm classes, the usual checkpoint layout, the Stable Diffusion schedule."""

from __future__ import annotations

import pytest
import torch
from ldm.modules.diffusionmodules.model import Decoder, Encoder
from ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import load_file, save_file
from tiny_checkpoint import model_description, write_checkpoint

from pocket_webui.model.build import build_model, parameter_count, read_config
from pocket_webui.model.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_checkpoint(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_checkpoint(checkpoint)


def test_unet_and_vae_are_the_stock_classes(model):
    assert type(model.model.diffusion_model) is UNetModel
    assert type(model.first_stage_model.encoder) is Encoder
    assert type(model.first_stage_model.decoder) is Decoder


def test_parts_load_strict_into_freshly_built_stock_classes(checkpoint):
    weights = load_file(str(checkpoint))
    params = model_description()

    def part(prefix):
        return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}

    UNetModel(**params["unet_config"]["params"]).load_state_dict(part("model.diffusion_model."), strict=True)
    ddconfig = params["first_stage_config"]["params"]["ddconfig"]
    Encoder(**ddconfig).load_state_dict(part("first_stage_model.encoder."), strict=True)
    Decoder(**ddconfig).load_state_dict(part("first_stage_model.decoder."), strict=True)


def test_file_is_fp16_in_the_usual_layout_and_memory_is_fp32(checkpoint, model):
    weights = load_file(str(checkpoint))
    prefixes = {".".join(name.split(".")[: 2 if name.startswith("model") else 1]) for name in weights}
    assert prefixes == {"model.diffusion_model", "first_stage_model", "cond_stage_model"}
    assert {tensor.dtype for tensor in weights.values()} == {torch.float16}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert parameter_count(model) == sum(tensor.numel() for tensor in weights.values())


def test_saving_and_loading_keeps_every_weight_within_fp16(model, checkpoint, tmp_path):
    save_checkpoint(model, tmp_path / "again.safetensors")
    (tmp_path / "again.yaml").write_text(checkpoint.with_suffix(".yaml").read_text())
    again = load_checkpoint(tmp_path / "again.safetensors").state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(again[name], tensor), name


@pytest.mark.parametrize("change", ["missing", "surplus"])
def test_a_checkpoint_that_does_not_fit_is_refused(checkpoint, tmp_path, change):
    weights = load_file(str(checkpoint))
    if change == "missing":
        del weights["first_stage_model.quant_conv.bias"]
    else:
        weights["model.diffusion_model.extra"] = torch.zeros(1)
    save_file(weights, str(tmp_path / "odd.safetensors"))
    (tmp_path / "odd.yaml").write_text(checkpoint.with_suffix(".yaml").read_text())
    with pytest.raises(RuntimeError, match=r"Missing key|Unexpected key"):
        load_checkpoint(tmp_path / "odd.safetensors")


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        load_checkpoint(tmp_path / "nothing.safetensors")
    (tmp_path / "lonely.safetensors").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"lonely\.yaml"):
        load_checkpoint(tmp_path / "lonely.safetensors")


def test_a_yaml_that_describes_no_model_is_refused(tmp_path):
    (tmp_path / "odd.yaml").write_text("something: else\n")
    with pytest.raises(ValueError, match=r"odd\.yaml"):
        read_config(tmp_path / "odd.yaml")


def test_schedule_is_stable_diffusions(model):
    """Betas (sqrt(0.00085) .. sqrt(0.012)) squared, multiplied up one by one."""
    product, expected = 1.0, []
    for i in range(1000):
        root = 0.00085**0.5 + i / 999 * (0.012**0.5 - 0.00085**0.5)
        product *= 1 - root**2
        expected.append(product)
    assert torch.allclose(model.alphas_cumprod, torch.tensor(expected), atol=1e-6)
    assert model.alphas_cumprod[-1].item() == pytest.approx(0.00466, abs=1e-5)


def test_attributes_that_an_extension_reads(model):
    assert (model.is_sd1, model.is_sd2, model.is_sdxl, model.is_sd3) == (True, False, False, False)
    assert (model.parameterization, model.image_size, model.latent_channels) == ("eps", 16, 8)
    assert model.cond_stage_key == "txt"
    assert model.model.conditioning_key == "crossattn"


def test_everything_comes_from_the_yaml():
    changed = model_description(channels=16, image_size=32, parameterization="v", scale_factor=0.5)
    changed["unet_config"]["params"].update(in_channels=16, out_channels=16)
    changed["first_stage_config"]["params"]["embed_dim"] = 16
    changed["first_stage_config"]["params"]["ddconfig"]["z_channels"] = 16
    model = build_model(changed)
    assert (model.latent_channels, model.image_size, model.parameterization) == (16, 32, "v")
    z = model.encode_first_stage(torch.zeros(1, 3, 64, 32)).mode()
    assert z.shape == (1, 16, 8, 4)
    out = model.apply_model(z, torch.tensor([3]), model.get_learned_conditioning(["a red sun"]))
    assert out.shape == z.shape


def test_unknown_prediction_is_refused():
    with pytest.raises(ValueError, match="flow"):
        build_model(model_description(parameterization="flow"))


def test_conditioning_may_be_a_tensor_or_ldms_dict(model):
    x, t = torch.randn(2, 8, 8, 8), torch.tensor([10, 700])
    c = model.get_learned_conditioning(["a red sun", "a blue planet"])
    as_dict = {"c_crossattn": [c], "c_concat": [torch.zeros(2, 5, 1, 1)]}
    assert torch.equal(model.apply_model(x, t, c), model.apply_model(x, t, as_dict))


def test_latents_are_scaled(model):
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    posterior = model.encode_first_stage(image)
    assert torch.equal(model.get_first_stage_encoding(posterior.mode()), 0.9 * posterior.mode())
    decoded = model.decode_first_stage(0.9 * posterior.mode())
    assert torch.allclose(decoded, model.first_stage_model.decode(posterior.mode()), atol=1e-5)


def test_posterior_is_drawn_with_the_global_generator(model):
    image = torch.rand(1, 3, 32, 32) * 2 - 1
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(model.get_first_stage_encoding(model.encode_first_stage(image)))
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
