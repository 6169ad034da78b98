"""The frozen network that the run was trained on, by base.json."""

import json
from pathlib import Path

import timm
from safetensors.torch import load_file

HERE = Path(__file__).parent


def spec(folder=HERE):
    """What base.json says."""
    return json.loads((Path(folder) / "base.json").read_text(encoding="utf-8"))


def built(base, pretrained=False):
    """The network without its weights, or with those that timm fetches."""
    if base["architecture"].startswith("lab_vit"):
        from stem import ConvStem
        from timm.models.vision_transformer import VisionTransformer

        return VisionTransformer(num_classes=base["num_classes"], embed_layer=ConvStem, **base["args"]).eval()
    name = base["architecture"]
    return timm.create_model(name, pretrained=pretrained, num_classes=base["num_classes"], **base["args"]).eval()


def frozen(folder=HERE):
    """The network with its frozen weights and a new head."""
    base = spec(folder)
    network = built(base, pretrained=base["pretrained"])
    if not base["pretrained"]:
        network.load_state_dict(load_file(Path(folder) / "base.safetensors"))
    return network
