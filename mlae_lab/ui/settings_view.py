"""The settings of a run, each with its reason."""

from __future__ import annotations

import math
from html import escape

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from mlae_lab.core import catalog, paper
from mlae_lab.core.config import (
    DEVICES,
    MASKS_PER,
    MAX_INPUT_DROPOUT,
    NORMALISATIONS,
    PRECISIONS,
    PREPROCESSINGS,
    RunConfig,
)
from mlae_lab.ui.draft import widget_key
from mlae_lab.ui.navigation import link
from mlae_lab.ui.thumbnails import mask_image

_PROTOCOLS = {"val": "train800 → val200", "test": "train1000 → test"}  # in words short enough for their field
_METHODS = {"mlae": "Masked experts (MLAE)", "linear": "Linear probe"}


def choices(config: RunConfig) -> None:
    """Task, mask and backbone of the draft, with their images, in one line."""
    task, backbone, plan = catalog.task(config.task), catalog.backbone(config.backbone), config.plan
    with st.container(key="pair_choices"):
        one, two, three = st.columns(3, gap="medium")
    with one.container(border=True, height="stretch"):
        st.html(
            f'<div class="lab-choice"><small>Task</small><b>{escape(task.title)}</b><span>{task.question}'
            + (f" {task.classes} classes." if task.classes else "")
            + _reported(task.name)
            + "</span></div>"
        )
        link("task", "Choose another task", task=task.name)
    with two.container(border=True, height="stretch"):
        st.html(
            f'<div class="lab-choice with-mask"><div><img src="{mask_image(plan)}" alt=""></div><div><small>Mask</small><b>{plan.kind.value.capitalize()}</b>'
            f"<span>{plan.experts} experts in {plan.rows} layers</span></div></div>"
        )
        link("masks", "Paint another mask", mask=plan.code)
    with three.container(border=True, height="stretch"):
        st.html(
            f'<div class="lab-choice"><small>Backbone</small><b>{backbone.title}</b><span>{backbone.note}</span></div>'
        )


def _reported(task: str) -> str:
    found, tuned = paper.MLAE_ACCURACY.get(task), paper.TUNED.get(task)
    if found is None:
        return ""
    with_ = f" with p = {tuned.drop_rate:g}, λ from {tuned.coefficient_init:g}" if tuned else ""
    return f" The paper reaches {found.value:g} % on test{with_} ({found.table})."


def _four(row: str) -> list[DeltaGenerator]:
    """Four fields beside each other; in a narrow window two, so that what is chosen can be read."""
    return st.container(key=f"four_{row}").columns(4)


def settings(config: RunConfig) -> dict:
    """Draw the settings; returns what they say, by the names of RunConfig's fields."""
    a, b, c, d = _four("first")
    method = a.selectbox(
        "Method",
        list(_METHODS),
        index=list(_METHODS).index(config.method),
        format_func=_METHODS.get,
        key=widget_key("train_method"),
        help="Masked experts: experts and head learn. Linear probe: only the head does.",
    )
    epochs = b.number_input(
        "Epochs",
        1,
        10_000,
        config.epochs,
        key=widget_key("train_epochs"),
        help="The paper: 500 on VTAB-1k. One epoch is 13 steps of 64 images here.",
    )
    rate = c.number_input(
        "Learning rate",
        min(1e-6, config.learning_rate),
        10.0,
        config.learning_rate,
        step=1e-3,
        format="%g",
        key=widget_key("train_rate"),
        help="The paper: 5e-4 over 500 epochs. A short run needs a larger one.",
    )
    seed = d.number_input(
        "Seed",
        0,
        2**31 - 1,
        config.seed,
        key=widget_key("train_seed"),
        help="Of the experts' first values, the order of images and the masks drawn.",
    )
    with st.expander("More settings"):
        a, b, c, d = _four("backbone")
        backbones = list(dict.fromkeys([*(entry.name for entry in catalog.BACKBONES), config.backbone]))
        backbone = a.selectbox(
            "Backbone",
            backbones,
            index=backbones.index(config.backbone),
            key=widget_key("train_backbone"),
            format_func=_backbone_title,
            accept_new_options=True,
            help="Or type any timm name, such as deit_small_patch16_224.fb_in1k. Random weights (a name that ends in "
            ".random) are the control: what the experts can do without pretraining.",
        )
        protocol = b.selectbox(
            "Protocol",
            list(_PROTOCOLS),
            index=list(_PROTOCOLS).index(config.protocol),
            key=widget_key("train_protocol"),
            format_func=_PROTOCOLS.get,
            help="val: train on 800, measure on 200, for playing. test: train on all 1,000, measure on test. Choose "
            "settings on val; the number to report is test, last epoch, several seeds.",
        )
        evaluations = c.number_input(
            "Measurements",
            0,
            10_000,
            config.evaluations,
            key=widget_key("train_evaluations"),
            help="How many times accuracy is measured; 0: after every epoch.",
        )
        batch = d.number_input(
            "Batch size", 1, 4096, config.batch_size, key=widget_key("train_batch"), help="The paper: 64."
        )
        a, b, c, d = _four("optimizer")
        decay = a.number_input(
            "Weight decay",
            0.0,
            10.0,
            config.weight_decay,
            step=1e-4,
            format="%g",
            key=widget_key("train_decay"),
            help="The paper: 1e-4.",
        )
        warmup = b.number_input(
            "Warm-up",
            0.0,
            0.9,
            config.warmup,
            step=0.05,
            key=widget_key("train_warmup"),
            help="Share of the steps with a rising learning rate. The paper names none.",
        )
        device = c.selectbox(
            "Device",
            DEVICES,
            index=DEVICES.index(config.device),
            key=widget_key("train_device"),
            help="auto: a CUDA GPU where there is one.",
        )
        precision = d.selectbox(
            "Precision",
            PRECISIONS,
            index=PRECISIONS.index(config.precision),
            key=widget_key("train_precision"),
            help="auto: bfloat16 where the hardware multiplies it faster (a GPU, a CPU with AMX or AVX-512 bfloat16), else float32.",
        )
        a, b, c, d = _four("images")
        preprocessing = b.selectbox(
            "Preprocessing",
            PREPROCESSINGS,
            index=PREPROCESSINGS.index(config.preprocessing),
            key=widget_key("train_preprocessing"),
            help="vtab: resized, nothing augmented. fgvc-rrc: random resized crop and flip. fgvc-crop: random crop "
            "and flip. auto: fgvc-rrc for FGVC, else vtab.",
        )
        normalisation = c.selectbox(
            "Normalisation",
            NORMALISATIONS,
            index=NORMALISATIONS.index(config.normalisation),
            key=widget_key("train_normalisation"),
            help="half: mean = std = 0.5, as the paper. auto: what the backbone was pretrained with.",
        )
        limit = a.number_input(
            "Stop after seconds",
            0,
            30 * 86_400,
            math.ceil(config.max_seconds or 0),
            key=widget_key("train_limit"),
            help="0: no limit. With one the learning rate follows the clock, and two machines do not get one result.",
        )
        mask_per = d.selectbox(
            "Masks drawn per",
            MASKS_PER,
            index=MASKS_PER.index(config.mask_per),
            key=widget_key("train_mask_per"),
            help="step: once for the whole batch, as the paper. token: anew for every token, ordinary dropout on A x; "
            "the control that tells the mask's structure from its noise.",
        )
        a, _, _, _ = _four("controls")
        dropped = a.number_input(
            "Input dropout",
            0.0,
            MAX_INPUT_DROPOUT,
            config.input_dropout,
            step=0.05,
            key=widget_key("train_input_dropout"),
            help="Share of the numbers of x that are dropped in front of A in training, as LoRA's dropout. The paper: 0.",
        )
    return {
        "method": method,
        "epochs": int(epochs),
        "learning_rate": float(rate),
        "seed": int(seed),
        "backbone": backbone or config.backbone,
        "protocol": protocol,
        "evaluations": int(evaluations),
        "batch_size": int(batch),
        "weight_decay": float(decay),
        "warmup": float(warmup),
        "device": device,
        "precision": precision,
        "max_seconds": float(limit) or None,
        "preprocessing": preprocessing,
        "normalisation": normalisation,
        "mask_per": mask_per,
        "input_dropout": float(dropped),
    }


def _backbone_title(name: str) -> str:
    try:
        return catalog.backbone(name).title
    except catalog.CatalogError:
        return name
