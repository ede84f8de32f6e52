"""The families of models that ScaleDiff knows: a new transformer is an entry here and a test.

Networks are told by the name of their class, so that no host is imported; `hosts/patcher` looks the functions up.
The hosts' files named are Neo's where they begin with backend/.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from scalediff.models.family import IMAGE, AttentionAt, Blocks, Family, FamilyDefaults, Rotation

UNET_DEFAULTS = FamilyDefaults(tau=400, factor=1 / 8)
UNETS = {
    "sd1": UNET_DEFAULTS,
    "sd2": UNET_DEFAULTS,
    "sdxl": UNET_DEFAULTS,
    # as noisy as an eps model at 400, whose sigma there is about 1: half noise, half picture
    "sd1-flow": FamilyDefaults(tau=500, factor=1 / 8),
    "sdxl-flow": FamilyDefaults(tau=500, factor=1 / 8),
}
PAPER = FamilyDefaults(tau=600, factor=1 / 4)  # FLUX in 4.1 and App. A
FEW_STEPS = FamilyDefaults(tau=500, factor=1 / 4)  # of four steps half are left at half the way

KERNEL = ("backend.attention", "attention_function")  # Forge and Neo
PATCHED_KERNEL = ("ldm_patched.ldm.modules.attention", "optimized_attention")  # reForge and Classic


def _own(module: str) -> AttentionAt:
    """A module of Forge or Neo that calls its own `attention`, which calls the kernel as the module names it."""
    return AttentionAt((module, "attention"), (module, "attention_function"))


def _by_name(module: str) -> AttentionAt:
    """A module of Neo that imported the kernel by name and calls it as it is."""
    return AttentionAt((module, "attention_function"), KERNEL)


FLUX_CLASSES = ("IntegratedFluxTransformer2DModel", "Flux")
FLUX_WEIGHT = "double_blocks.0.img_attn.proj.weight"
FLUX_BLOCKS = (Blocks("double_blocks.*", streams=2), Blocks("single_blocks.*"))
FLUX_ATTENTION = (
    _own("backend.nn.flux"),
    AttentionAt(("ldm_patched.ldm.flux.layers", "attention"), PATCHED_KERNEL),
)

FLUX = Family(
    name="flux",
    title="FLUX.1",
    classes=FLUX_CLASSES,
    having={"patch_size": 2, "guidance_embed": True, "params.guidance_embed": True},
    channels=(16, 64),
    weights=(FLUX_WEIGHT, "guidance_in.in_layer.weight"),
    blocks=FLUX_BLOCKS,
    attention=FLUX_ATTENTION,
    form="table",
    defaults=PAPER,
)
SCHNELL = Family(
    name="schnell",
    title="FLUX.1 schnell",
    classes=FLUX_CLASSES,
    having={"patch_size": 2},
    channels=(16, 64),
    weights=(FLUX_WEIGHT,),
    blocks=FLUX_BLOCKS,
    attention=FLUX_ATTENTION,
    form="table",
    defaults=FEW_STEPS,
)
# One cell is one token of 16 pixels; ids (0, row, column, 0), of text (0, 0, 0, i): backend/nn/flux.py:560
KLEIN = Family(
    name="klein",
    title="FLUX.2 Klein",
    classes=FLUX_CLASSES,
    having={"patch_size": 1, "guidance_embed": False},
    channels=(128,),
    weights=(FLUX_WEIGHT, "double_stream_modulation_img.lin.weight"),
    blocks=FLUX_BLOCKS,
    attention=FLUX_ATTENTION,
    form="table",
    text_ids=True,
    patch=1,
    cell=16,
    native=(64, 64),
    defaults=FamilyDefaults(tau=500, factor=1 / 2),
)
# Forge's has blocks of its own, with FLUX's function imported by name; Neo's (backend/nn/chroma.py:9) are FLUX's
# blocks, and its module lacks the function.
CHROMA = Family(
    name="chroma",
    title="Chroma",
    classes=("IntegratedChromaTransformer2DModel", "Chroma"),
    weights=(FLUX_WEIGHT, "distilled_guidance_layer.in_proj.weight"),
    blocks=FLUX_BLOCKS,
    attention=(
        _own("backend.nn.chroma"),
        _own("backend.nn.flux"),
        AttentionAt(("ldm_patched.ldm.chroma.layers", "attention"), PATCHED_KERNEL),
    ),
    form="table",
    defaults=PAPER,
)
SD3 = Family(
    name="sd3",
    title="Stable Diffusion 3",
    classes=("MMDiTX", "MMDiT", "OpenAISignatureMMDITWrapper"),
    weights=("joint_blocks.0.x_block.attn.qkv.weight",),
    blocks=(Blocks("joint_blocks.*", streams=2),),
    attention=(
        AttentionAt(("backend.nn.mmditx", "attention"), None),
        AttentionAt(
            ("ldm_patched.ldm.modules.diffusionmodules.mmdit", "optimized_attention"), PATCHED_KERNEL
        ),
    ),
    form="heads",
    defaults=PAPER,
)
# The image alone, turned already; cross-attention calls the same function: backend/nn/anima.py:146
ANIMA = Family(
    name="anima",
    title="Anima",
    classes=("Anima",),
    channels=(16,),
    weights=("blocks.0.adaln_modulation_self_attn.1.weight",),
    blocks=(Blocks("blocks.*.self_attn", IMAGE),),
    attention=(_by_name("backend.nn.anima"),),
    form="heads",
    has_frames=True,
    defaults=PAPER,
)
# The image is refined alone before it meets the text; ids (L + 1, row, column), of text (1..L, 0, 0):
# backend/nn/lumina.py:340
LUMINA2 = Family(
    name="lumina2",
    title="Lumina 2",
    classes=("NextDiT",),
    having={"pad_tokens_multiple": None},
    channels=(16,),
    weights=("cap_embedder.1.weight", "noise_refiner.0.attention.k_norm.weight"),
    blocks=(Blocks("noise_refiner.*", IMAGE), Blocks("layers.*")),
    attention=(_by_name("backend.nn.lumina"),),
    form="heads",
    rotation=Rotation((("backend.nn.lumina", "apply_rope"),), rows_first=True),
    text_ids=True,
    defaults=PAPER,
)
# The same with text and image filled up to multiples of 32
ZIMAGE = Family(
    name="zimage",
    title="Z-Image",
    classes=("NextDiT",),
    channels=(16,),
    weights=(*LUMINA2.weights, "cap_pad_token"),
    blocks=LUMINA2.blocks,
    attention=LUMINA2.attention,
    form="heads",
    rotation=LUMINA2.rotation,
    text_ids=True,
    padding="pad_tokens_multiple",
    defaults=PAPER,
)
# ids (0, row - H // 2, column - W // 2), of text one number for all three: backend/nn/qwen.py:374
QWEN = Family(
    name="qwen",
    title="Qwen-Image",
    classes=("QwenImageTransformer2DModel",),
    channels=(64,),
    weights=("txt_norm.weight", "transformer_blocks.0.attn.add_q_proj.weight"),
    blocks=(Blocks("transformer_blocks.*", streams=2),),
    attention=(_by_name("backend.nn.qwen"),),
    form="heads",
    rotation=Rotation((("backend.nn.qwen", "apply_rotary_emb"),), rows_first=True),
    centred=True,
    has_frames=True,
    native=(166, 166),
    defaults=PAPER,
)
# The condition is [B, 1, tokens, layers * C], and blocks of its own fuse the layers: backend/nn/krea.py:366
KREA = Family(
    name="krea",
    title="Krea 2",
    classes=("SingleStreamDiT",),
    weights=("txtfusion.projector.weight",),
    blocks=(Blocks("blocks.*"),),
    attention=(_by_name("backend.nn.krea"),),
    form="heads",
    rotation=Rotation((("backend.nn.krea", "apply_rope"),)),
    text_axis=2,
    has_frames=True,
    defaults=PAPER,
)
# The text behind the image, and a table that is no rotation, two frequencies in one matrix: backend/nn/ernie.py:30
ERNIE = Family(
    name="ernie",
    title="ERNIE-Image",
    classes=("ErnieImageModel",),
    weights=("layers.0.mlp.linear_fc2.weight",),
    blocks=(Blocks("layers.*"),),
    attention=(_by_name("backend.nn.ernie"),),
    form="heads",
    rotation=Rotation((("backend.nn.ernie", "ck.apply_rope_split_half"),), rows_first=True),
    halves=True,
    text_ids=True,
    absolute=True,
    text_last=True,
    patch=1,
    cell=16,
    native=(64, 64),
    defaults=FamilyDefaults(tau=600, factor=1 / 2),
)
# A video model, whose pictures are videos of one frame: backend/nn/wan.py:18
WAN = Family(
    name="wan",
    title="Wan",
    classes=("WanModel",),
    having={"in_dim": 16},
    weights=("head.modulation", "patch_embedding.weight"),
    blocks=(Blocks("blocks.*.self_attn", IMAGE),),
    attention=(AttentionAt(("backend.nn.wan", "attention"), ("backend.nn.wan", "attention_function")),),
    form="heads",
    has_frames=True,
    native=(120, 120),
    defaults=PAPER,
)

# The first that matches counts
FAMILIES = (FLUX, SCHNELL, KLEIN, CHROMA, SD3, ANIMA, LUMINA2, ZIMAGE, QWEN, KREA, ERNIE, WAN)

# Class of a network that is known and cannot be windowed -> why
TURNS_ITSELF = "its attention turns q and k by itself, in code that cannot be reached"
REFUSED = {
    "PidNet": "PiD enlarges pictures itself, and squeezes any canvas into the same positions",
    "SVDQFluxTransformer2DModel": f"this is Nunchaku's FLUX: {TURNS_ITSELF}",
    "NunchakuQwenImageTransformer2DModel": f"this is Nunchaku's Qwen-Image: {TURNS_ITSELF}",
    "NunchakuZImage2DModel": f"this is Nunchaku's Z-Image: {TURNS_ITSELF}",
    "WanModel": "this Wan model is given a picture or a video beside the noise",
}


def family_of(network: Any) -> Family | None:
    """The entry of a transformer; None for a network that is not known."""
    return next((family for family in FAMILIES if family.matches(network)), None)


def family_of_weights(names: Iterable[str]) -> Family | None:
    """The entry of a checkpoint's transformer by the names of its tensors; None where none is known."""
    known = set(names)
    ends = {name.split(".", start)[-1] for name in known for start in range(name.count(".") + 1)}
    matching = [family for family in FAMILIES if family.weights and ends.issuperset(family.weights)]
    return max(matching, key=lambda family: len(family.weights), default=None)


def defaults_of(name: str) -> FamilyDefaults:
    """Settings that suit a family by its name; those of a UNet where the family is not known."""
    known = next((family for family in FAMILIES if family.name == name), None)
    return known.defaults if known is not None else UNETS.get(name, UNET_DEFAULTS)
