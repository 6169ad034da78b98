"""The settings of a run as a form, built from their descriptions."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from html import escape
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from mlae_lab.core import backbones, catalog, paper
from mlae_lab.core.config import RunConfig
from mlae_lab.core.method import method, with_texts
from mlae_lab.core.settings import ConfigError, Setting, form_groups, settings_of
from mlae_lab.data.listing import counted
from mlae_lab.locations import weights_file
from mlae_lab.ui import terms
from mlae_lab.ui.draft import widget_key
from mlae_lab.ui.method_view import method_choice
from mlae_lab.ui.navigation import link
from mlae_lab.ui.thumbnails import mask_image

PER_ROW = 4
_WIDE = ("backbone", "image_size")
_OF = "of_"  # begins the group of a method's own settings
_SMALLEST = 1e-6  # smallest value of the form where 0 is excluded; a smaller one from a link is shown too


def choices(config: RunConfig) -> None:
    """Draw task, mask and backbone of the draft in one row."""
    task, backbone, plan = catalog.task(config.task), config.network, config.plan
    with st.container(key="pair_choices"):
        task_column, mask_column, backbone_column = st.columns(3, gap="medium")
    with task_column.container(border=True, height="stretch"):
        st.html(
            f'<div class="lab-choice"><small>Task</small><b>{escape(task.title)}</b><span>{task.question}'
            + (f" {task.classes} classes." if task.classes else "")
            + _reported(task.name)
            + "</span></div>"
        )
        link("task", "Choose another task", task=task.name)
    with mask_column.container(border=True, height="stretch"):
        if config.has_mask:
            st.html(
                f'<div class="lab-choice with-mask"><div><img src="{mask_image(plan)}" alt=""></div>'
                f"<div><small>{terms.button('mask')}</small><b>{terms.marked(plan.kind_name.capitalize())}</b>"
                f"<span>{counted(plan.experts, 'expert')} in {counted(plan.rows, 'layer')}</span></div></div>"
            )
            link("masks", "Paint another mask", mask=plan.code)
        else:
            st.html(method_choice(config))
    with backbone_column.container(border=True, height="stretch"):
        st.html(
            f'<div class="lab-choice"><small>{terms.button("backbone")}</small><b>{backbone.title}</b>'
            f"<span>{backbone.note}{_other_size(config)}</span></div>"
        )


def _other_size(config: RunConfig) -> str:
    if not config.image_size:
        return ""
    tokens = f", {config.network.tokens:,} tokens" if config.network.tokens else ""
    return f" · here at {config.image_size} px{tokens}"


def _reported(task: str) -> str:
    accuracy, tuned = paper.MLAE_ACCURACY.get(task), paper.TUNED.get(task)
    if accuracy is None:
        return ""
    values = f" with p = {tuned.drop_rate:g}, initial λ = {tuned.coefficient_init:g}" if tuned else ""
    return f" The paper reports {accuracy.value:g} % on test{values} ({accuracy.table})."


def settings(config: Any) -> dict[str, Any]:
    """Draw the form; returns its values by field name.

    Args:
        config: The initial values: a RunConfig, or another dataclass with described fields.
    """
    groups = form_groups(type(config))
    values = _rows("main", groups.pop("main", []), config)
    if isinstance(config, RunConfig):
        values["method_settings"] = _method_settings(config, values["method"])
    if groups:
        method_name = values.get("method", "")
        with st.expander("More settings"):
            for name, described in groups.items():
                own = [setting for setting in described if setting.method in ("", method_name)]
                wide = [setting for setting in own if setting.name in _WIDE]
                values |= _wide_row(wide, config)
                values |= _rows(name, [setting for setting in own if setting not in wide], config)
    return values


def _method_settings(config: RunConfig, name: str) -> tuple[str, ...]:
    """Draw the settings of the chosen method; an unknown one has none, and its error is shown with the form."""
    with suppress(ConfigError):
        described = method(name)
        initial = with_texts(described, config.method_settings if name == config.method else ())
        if own := settings_of(described):
            values = _rows(f"{_OF}{name}", own, initial)
            return tuple(f"{setting.name}={setting.to_text(values[setting.name])}" for setting in own)
    return ()


def _rows(group: str, described: Sequence[Setting], config: Any) -> dict[str, Any]:
    """Draw four fields per row, two in a narrow window."""
    values = {}
    for first in range(0, len(described), PER_ROW):
        columns = st.container(key=f"four_{group}_{first}").columns(PER_ROW)
        for setting, column in zip(described[first : first + PER_ROW], columns, strict=False):
            key = f"train_{group}_{setting.name}" if group.startswith(_OF) else f"train_{setting.name}"
            values[setting.name] = _field(column, setting, getattr(config, setting.name), key)
    return values


def _wide_row(described: Sequence[Setting], config: Any) -> dict[str, Any]:
    """Draw settings of which the first needs room for long choices."""
    if not described:
        return {}
    columns = st.container(key="wide_setup").columns([PER_ROW - len(described) + 1, *[1] * (len(described) - 1)])
    return {
        setting.name: _field(column, setting, getattr(config, setting.name), f"train_{setting.name}")
        for setting, column in zip(described, columns, strict=True)
    }


def _help(setting: Setting) -> str:
    """The help of a setting, with the definition of its word."""
    own = f"{setting.help} 0: none." if setting.optional and setting.kind in (int, float) else setting.help
    definition = terms.of_setting(setting.name) if not setting.method or setting.method == "mlae" else ""
    return f"{own}\n\n{definition}" if definition else own


def _field(column: DeltaGenerator, setting: Setting, value: Any, name: str) -> Any:
    key = widget_key(name)
    if setting.kind is bool:
        return column.toggle(setting.label, value, key=key, help=_help(setting))
    if setting.kind in (int, float):
        kind = setting.kind
        low = min(_SMALLEST, value or _SMALLEST) if setting.exclusive and not setting.optional else setting.low
        number = column.number_input(
            setting.label,
            kind(low),
            kind(setting.high),
            kind(value or 0),
            step=kind(setting.step),
            format="%d" if kind is int else "%g",
            key=key,
            help=_help(setting),
        )
        return None if setting.optional and not number else kind(number)
    if not setting.choices:
        return column.text_input(setting.label, value, key=key, help=_help(setting))
    others = backbones.names() if setting.name == "backbone" else ()  # too many for the choices of an option
    options = list(dict.fromkeys([*setting.choices, value, *others]))
    chosen = column.selectbox(
        setting.label,
        options,
        index=options.index(value),
        format_func=lambda option: _title(setting, option),
        accept_new_options=setting.open_ended,
        key=key,
        help=_help(setting),
    )
    return chosen or value


def _title(setting: Setting, option: str) -> str:
    """The label of a choice; that of a backbone holds what a person may search for in the list."""
    if setting.name == "backbone":
        with suppress(catalog.CatalogError):  # the form shows the error of a name that is not known
            return _described(catalog.backbone(option))
    if setting.name == "method":
        with suppress(ConfigError):
            return method(option).title
    return setting.titles.get(option, option)


def _described(backbone: catalog.Backbone) -> str:
    """A backbone in the list: "vit_tiny_patch16_224.random · 224 px · 5.5 M parameters · apache-2.0 · weights here"."""
    here = not backbone.needs_file or weights_file(backbone.name).is_file()
    is_featured = backbone in catalog.BACKBONES and not backbone.bundled
    name = f"{backbone.title} · {backbone.name}" if is_featured else backbone.title
    size = f"{backbone.image_size} px · {backbone.parameters / 1e6:,.1f} M parameters"
    return " · ".join(filter(None, (name, size, backbone.licence, "weights here" if here else "")))
