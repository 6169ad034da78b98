"""The 19 sub-networks that NOAH's authors publish for VTAB-1k, for 12 blocks.

Source: ZhangYuanhan-AI/NOAH, experiments/NOAH/subnet/VTAB/ViT-B_prompt_<task>.yaml, the lists under RETRAIN.
"""

from __future__ import annotations

from typing import NamedTuple


class Sizes(NamedTuple):
    """Sizes by block, 0 for none.

    Attributes:
        prompt: Number of prompts.
        lora: Rank of LoRA in qkv.
        adapter: Hidden features of the adapter after the MLP.
    """

    prompt: tuple[int, ...]
    lora: tuple[int, ...]
    adapter: tuple[int, ...]


def _sizes(prompt: str, lora: str, adapter: str) -> Sizes:
    return Sizes(*(tuple(map(int, row.split())) for row in (prompt, lora, adapter)))


SUBNETS: dict[str, Sizes] = {
    "caltech101": _sizes(
        "5 10 1 5 10 1 10 1 10 1 10 1", "1 10 10 10 5 10 10 10 5 1 10 1", "10 1 5 10 10 1 5 5 10 1 5 10"
    ),
    "cifar100": _sizes("10 5 10 1 5 1 10 1 10 5 1 10", "10 1 5 5 1 10 1 1 1 10 1 1", "5 10 10 10 5 1 1 1 10 10 10 1"),
    "clevr_count": _sizes(
        "10 1 5 10 5 1 10 5 5 5 10 1", "1 1 10 5 10 10 10 1 5 1 10 1", "1 10 10 10 10 1 5 10 10 10 1 1"
    ),
    "clevr_dist": _sizes("10 1 1 10 5 10 5 1 5 10 5 5", "5 1 10 5 10 10 1 1 5 10 1 10", "1 1 1 10 1 1 1 10 5 1 10 10"),
    "diabetic_retinopathy": _sizes(
        "10 1 5 10 1 5 5 10 5 10 5 5", "1 1 10 5 5 10 1 10 10 5 10 1", "1 1 5 5 10 10 10 5 1 10 10 1"
    ),
    "dmlab": _sizes("1 10 5 1 10 10 5 10 10 1 1 1", "10 5 1 5 10 10 5 5 5 10 10 1", "5 1 5 1 5 1 5 5 5 10 10 10"),
    "dsprites_loc": _sizes(
        "5 10 1 10 10 5 5 1 5 5 10 1", "1 1 1 1 10 10 1 10 5 1 5 10", "1 1 1 10 1 1 10 10 10 10 10 1"
    ),
    "dsprites_ori": _sizes(
        "5 5 1 1 10 5 1 10 10 10 10 10", "1 10 1 10 1 5 10 10 5 5 1 5", "1 10 10 10 10 1 5 10 10 10 1 1"
    ),
    "dtd": _sizes("10 5 1 1 5 10 5 1 1 5 1 1", "10 5 1 1 5 10 5 1 1 5 1 1", "1 1 1 10 1 1 10 10 10 10 10 1"),
    "eurosat": _sizes(
        "10 10 10 10 10 1 5 5 10 10 5 10", "10 1 10 10 1 5 10 1 1 1 10 1", "10 10 5 1 10 1 10 5 10 1 10 10"
    ),
    "kitti": _sizes("1 5 10 1 10 5 1 1 1 5 5 5", "5 10 10 10 1 10 5 5 10 5 10 1", "5 1 10 10 1 10 1 1 5 10 5 5"),
    "oxford_flowers102": _sizes(
        "10 10 5 5 1 10 1 5 10 1 5 10", "10 10 5 5 1 10 1 5 10 1 5 10", "5 1 5 5 1 1 10 5 5 10 5 10"
    ),
    "oxford_pet": _sizes(
        "10 5 5 10 1 10 10 10 10 5 10 10", "10 1 1 10 5 1 1 5 10 10 1 10", "1 5 5 5 5 10 1 5 10 1 1 5"
    ),
    "patch_camelyon": _sizes(
        "10 10 5 10 1 10 10 10 5 1 5 5", "10 10 1 10 1 1 5 5 5 1 5 5", "5 1 10 5 5 1 1 10 1 5 1 5"
    ),
    "resisc45": _sizes("5 5 10 1 5 1 5 10 1 1 5 1", "10 10 5 5 5 10 10 10 1 5 1 5", "5 5 5 1 5 1 10 5 5 1 5 5"),
    "smallnorb_azi": _sizes("1 10 1 10 1 5 10 10 1 10 10 5", "10 5 1 5 1 1 5 5 10 1 1 10", "5 1 1 1 5 5 1 10 1 1 5 1"),
    "smallnorb_ele": _sizes(
        "10 1 1 1 1 5 10 10 10 10 1 10", "10 1 1 1 5 5 10 5 1 10 1 1", "1 1 1 10 1 1 10 10 10 10 10 1"
    ),
    "sun397": _sizes("5 1 10 5 5 10 1 5 1 1 1 1", "10 10 5 5 1 1 10 1 1 1 1 10", "10 5 1 1 1 10 5 5 1 1 5 1"),
    "svhn": _sizes("10 5 5 10 5 5 5 5 5 5 5 5", "5 5 5 10 5 5 5 10 10 10 10 5", "5 5 5 5 5 10 5 10 5 5 5 5"),
}
