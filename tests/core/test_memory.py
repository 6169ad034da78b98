"""Estimated memory of activations, and the number of images in one pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from mlae_lab.core import catalog, machine, memory
from mlae_lab.core.patterns import uniform
from mlae_lab.core.plan import first_block

LAB = catalog.backbone("lab_vit_12x128")
VIT_B16 = catalog.backbone("vit_base_patch16_224.orig_in21k")
DINO_B14 = catalog.backbone("vit_base_patch14_dinov2.lvd142m")  # 518 pixels, 1,370 tokens


def test_usual_networks_take_256_images_at_once_and_many_tokens_fewer() -> None:
    sizes = {}
    for backbone in (LAB, VIT_B16, DINO_B14):
        fused = memory.attention_is_fused(backbone, "cpu")
        bytes_ = memory.evaluation_bytes(backbone, fused)
        sizes[backbone.name] = memory.images_at_once(bytes_, limit=memory.LARGEST_PIECE)
        assert sizes[backbone.name] * bytes_ <= memory.LARGEST_PIECE
    assert list(sizes.values())[:2] == [256, 256]
    assert 20 < sizes[DINO_B14.name] < 100


def test_attention_on_a_cpu_is_fused_where_its_matrices_are_large() -> None:
    """At 518 pixels, the two matrices of one image of ViT-B take 180 MB in every block."""
    assert [memory.attention_is_fused(b, "cpu") for b in (LAB, VIT_B16, DINO_B14)] == [False, False, True]
    assert memory.attention_is_fused(LAB, "cuda")
    unfused = memory.evaluation_bytes(DINO_B14, False) - memory.evaluation_bytes(DINO_B14, True)
    assert unfused == 4 * 2 * 12 * 1370**2


def test_a_training_step_keeps_the_blocks_from_the_first_with_an_expert() -> None:
    all_blocks = memory.training_bytes(VIT_B16, 0, False)
    upper = memory.training_bytes(VIT_B16, 8, False)
    once = memory.evaluation_bytes(VIT_B16, False)
    assert all_blocks - once == pytest.approx(3 * (upper - once), rel=1e-6)
    assert 80e6 < all_blocks < 160e6  # measured: 16 images take 2 GB
    assert memory.training_bytes(VIT_B16, 12, False) == 4 * 768


def test_the_estimate_of_a_training_step_against_what_autograd_keeps() -> None:
    import torch

    from mlae_lab.model.backbones import build, set_fused_attention
    from mlae_lab.model.inject import inject

    plan, images = uniform(0.5), 4
    model = build("lab_vit_12x128.random", 10, seed=0)
    inject(model, plan, 0).sample()
    set_fused_attention(model, False)
    frozen = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in frozen:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        output = model(torch.zeros(images, 3, 48, 48))
    assert output.requires_grad
    estimate = memory.training_bytes(LAB, first_block(plan, 12), False) - memory.evaluation_bytes(LAB, False)
    assert 0.6 < estimate / (sum(kept.values()) / images) < 1.6


def test_every_backbone_has_an_estimate() -> None:
    for name in ("swin_base_patch4_window7_224", "mixer_b16_224", "convnext_base", "vit_large_patch14_dinov2"):
        backbone = catalog.backbone(name)
        assert 1e6 < memory.evaluation_bytes(backbone, True) < 500e6


def test_a_piece_takes_a_quarter_of_the_memory_that_a_job_may_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The limit of a job is that of a group below the top, as with Slurm or systemd."""
    proc, groups, read = tmp_path / "proc", tmp_path / "groups", machine.memory
    (proc / "self").mkdir(parents=True)
    (proc / "self" / "cgroup").write_text("0::/jobs/job7\n")
    (proc / "meminfo").write_text("MemTotal: 32000000 kB\nMemAvailable: 20000000 kB\n")
    job = groups / "jobs" / "job7"
    job.mkdir(parents=True)
    (job / "memory.current").write_text("7\n")
    (job / "memory.stat").write_text("inactive_file 0\n")
    monkeypatch.setattr(machine, "memory", lambda: read(proc, groups))
    for content, piece in (("1000000000\n", 250_000_000), ("max\n", 4 * 2**30)):
        (job / "memory.max").write_text(content)
        memory.piece_bytes.cache_clear()
        assert memory.piece_bytes() == piece
    assert memory.images_at_once(10**12) == 1
    memory.piece_bytes.cache_clear()
