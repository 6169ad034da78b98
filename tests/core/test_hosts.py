"""Sources of downloads: every task that is not bundled has one, and unknown names get an error."""

from __future__ import annotations

import pytest

from mlae_lab.core import catalog, hosts
from mlae_lab.core.catalog import CatalogError, Group
from mlae_lab.core.hosts import HostError, remote


def test_every_task_that_is_not_bundled_can_be_fetched() -> None:
    for task in catalog.TASKS:
        if task.bundled:
            continue
        source = remote(task.name)
        assert source.name == source.task == task.name
        assert source.licence == task.licence
        assert task.source in source.citation
        assert source.size_bytes
        assert len(hosts.names()) == 19 + 5 + 3
        assert task.name in hosts.names()


def test_the_vtab_tasks_share_one_archive_and_have_a_smaller_set_each() -> None:
    vtab = [t for t in catalog.TASKS if t.group in (Group.NATURAL, Group.SPECIALIZED, Group.STRUCTURED)]
    assert len(vtab) == 19
    assert {(remote(t.name).repo, remote(t.name).files, remote(t.name).subfolder) for t in vtab} == {
        ("XiN0919/VTAB-1k", remote("cifar").files, "vtab-1k")
    }
    smaller = [remote(f"{t.name}.parquet") for t in vtab]
    assert sorted(r.repo.removeprefix("fw407/vtab-1k_") for r in smaller) == sorted(
        [
            "cifar",
            "caltech101",
            "dtd",
            "flowers102",
            "pets",
            "svhn",
            "sun397",
            "patch_camelyon",
            "eurosat",
            "resisc45",
            "retinopathy",
            "clevr_count",
            "clevr_distance",
            "dmlab",
            "kitti_distance",
            "dsprites_location",
            "dsprites_orientation",
            "smallnorb_azimuth",
            "smallnorb_elevation",
        ]
    )
    for source in smaller:
        assert source.size_bytes is None
        assert source.unpack == "parquet"
        assert source.subfolder == f"vtab-1k/{source.task}"
        assert remote(source.task).parts[0] == source.task
        assert source.name in remote(source.task).note


def test_known_sizes_and_checksums() -> None:
    birds, cars = remote("cub"), remote("StanfordCars")
    assert birds.files[1].size_bytes == 1_150_585_339
    assert birds.unpack == "tar"
    assert len(birds.files[1].md5) == 32
    assert len(cars.files[1].sha256) == 64
    assert [f.unpack for f in cars.files] == ["zip", "tar", None]
    weights = remote("vit_base_patch16_224.orig_in21k")
    assert (weights.repo_type, weights.unpack, weights.licence) == ("model", None, "Apache-2.0")
    assert weights.subfolder == "weights/vit_base_patch16_224.orig_in21k"
    assert weights.task is None
    assert weights.page == "https://huggingface.co/timm/vit_base_patch16_224.orig_in21k"


def test_every_trained_backbone_of_timm_is_fetched_by_its_name() -> None:
    for backbone in catalog.BACKBONES:
        if backbone.needs_file:
            source = remote(backbone.name)
            assert source.repo == f"timm/{backbone.name}"
            assert source.files[0].path == "model.safetensors"
            assert source.subfolder == f"weights/{backbone.name}"
    small = remote("vit_small_patch16_224")  # with timm's default tag
    assert small.name == "vit_small_patch16_224.augreg_in21k_ft_in1k"
    assert small.size_bytes == 4 * 21_665_664
    assert small.licence == "apache-2.0"  # as timm states it


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("digits", "digits comes with the lab: there is nothing to fetch"),
        ("fashion_mnist", "fashion comes with the lab"),
        (catalog.DEFAULT_BACKBONE, "comes with the lab"),
        ("vit_base_patch16_224.random", "has random weights: there is nothing to fetch"),
        ("vit_base_patch16_224_in21k", "use vit_base_patch16_224.orig_in21k for the paper's"),
        ("vit_base_patch16_224.foo", "vit_base_patch16_224 has no weights 'foo'"),
        ("own:flowers", "own:flowers is a folder of your images"),
        ("mnist", "'mnist' is neither a task nor a backbone"),
        ("cub.parquet", "only the VTAB-1k tasks have a smaller dataset, try cub"),
        ("x" * 500, "is neither a task nor a backbone"),
        ("../../etc", "is neither a task nor a backbone"),
        ("", "is neither a task nor a backbone"),
    ],
)
def test_names_with_nothing_to_fetch(name: str, sentence: str) -> None:
    with pytest.raises(HostError) as error:
        remote(name)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 600
    assert isinstance(error.value, CatalogError)
