"""The convolutional patch embedding of the bundled backbone.

A plain patch embedding is one linear map per patch, and a small ViT needs very many images to train it. Three
overlapping 3 x 3 convolutions detect edges from the start (Xiao et al. 2021, "Early convolutions help transformers see
better"). There are no batch statistics, so `train()` changes nothing in a frozen stem.
"""

from __future__ import annotations

import torch
from torch import nn


class ConvStem(nn.Module):
    """Images to tokens at stride 8: (N, in_chans, H, W) -> (N, H/8 * W/8, embed_dim).

    Replaces timm's `PatchEmbed` (`VisionTransformer(embed_layer=ConvStem)`), hence the names of its arguments and of
    `grid_size`, `num_patches` and `feat_ratio`.
    """

    def __init__(
        self,
        img_size: int = 48,
        patch_size: int = 8,
        in_chans: int = 3,
        embed_dim: int = 128,
        bias: bool = True,
        dynamic_img_pad: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if patch_size != 8 or img_size % 8 or dynamic_img_pad:
            raise ValueError(
                f"ConvStem has stride 8 and no padding: got patch size {patch_size}, image size {img_size}"
            )
        self.patch_size = (patch_size, patch_size)
        self.set_input_size((img_size, img_size))
        factory = {"device": device, "dtype": dtype}
        self.conv1 = nn.Conv2d(in_chans, embed_dim // 4, 3, stride=2, padding=1, **factory)
        self.conv2 = nn.Conv2d(embed_dim // 4, embed_dim // 2, 3, stride=2, padding=1, **factory)
        self.conv3 = nn.Conv2d(embed_dim // 2, embed_dim, 3, stride=2, padding=1, bias=bias, **factory)

    def set_input_size(self, img_size: tuple[int, int], patch_size: None = None) -> None:
        """Expect images of another size, in timm's interface: the convolutions take any, the position embedding one."""
        self.img_size = img_size
        self.grid_size = (img_size[0] // 8, img_size[1] // 8)
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def feat_ratio(self, as_scalar: bool = True) -> int | tuple[int, int]:
        """Pixels per token, in timm's interface."""
        return 8 if as_scalar else (8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.conv1(images))
        x = torch.relu(self.conv2(x))
        return self.conv3(x).flatten(2).transpose(1, 2)
