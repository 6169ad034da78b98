"""The choice of a method: a card for each, with a drawing of where it acts in a block."""

from __future__ import annotations

from html import escape

import streamlit as st

from mlae_lab.core import catalog, paper_methods, recipes
from mlae_lab.core import method as registry
from mlae_lab.core.config import RunConfig
from mlae_lab.core.method import Method, Trait
from mlae_lab.core.settings import ConfigError
from mlae_lab.ui import draft, page, terms
from mlae_lab.ui.cards import Card, cards
from mlae_lab.ui.markdown import plain, sentence
from mlae_lab.ui.thumbnails import block_image

_GROUPS = {
    True: "Merge into the weights after training: no cost at inference",
    False: "Stay in the network as additional layers or tokens",
}


def method_picker(config: RunConfig) -> None:
    """Draw the cards; a click puts the method into the draft and draws the page again."""
    with st.expander("Compare the methods"):
        methods, problems = registry.available()
        ordered = sorted(methods.values(), key=lambda described: Trait.MERGEABLE not in described.traits)
        items = [_card(described, config) for described in ordered]
        picked = cards(items, key="method_cards", label="Methods")
        page.note(
            "Green: what is trained, from the patch embedding on the left to the head on the right; the line below is "
            "the residual stream. Parameters: for the chosen backbone, without the head. Paper: ViT-B/16 on the test "
            "split of this task, mostly copied there from other papers with other recipes (Tables 1 and 11)."
        )
        for problem in problems:
            st.warning(plain(sentence(problem)))
    if picked and picked != config.method:
        draft.change(method=picked, method_settings=())
        draft.write_address("task", "mask", "set")
        st.rerun()


def _card(described: type[Method], config: RunConfig) -> Card:
    chosen = described.name == config.method
    lines = [_count(config.tuning if chosen else described(), config.network)]
    if cell := paper_methods.reported(described.name, config.task):
        lines.append(f"paper {cell.value:g} %")
    merged = Trait.MERGEABLE in described.traits
    return Card(
        described.name, described.title, f"{' · '.join(lines)}. {described.summary}", (block_image(described.places),),
        group=_GROUPS[merged], chosen=chosen,
    )  # fmt: skip


def _count(tuning: Method, backbone: catalog.Backbone) -> str:
    try:
        return f"{tuning.parameters(backbone):,} parameters"
    except (ConfigError, catalog.CatalogError):
        return "not for this backbone"


def method_choice(config: RunConfig) -> str:
    """HTML of the chosen method for the row above the form, in place of the mask of a method without one."""
    tuning = config.tuning
    count = _count(tuning, config.network)
    return (
        f'<div class="lab-choice"><small>Method</small><b>{escape(tuning.title)}</b>'
        f"<span>{escape(tuning.formula)}. {count}.</span>"
        f'<img src="{block_image(tuning.places)}" alt="" style="width: 100%; max-width: 240px; margin-top: 8px"></div>'
    )


_OWN = "Your own settings"


def recipe_choice(config: RunConfig) -> None:
    """Draw the choice of a recipe; one that is chosen replaces the settings of the draft that it names."""
    known = {title: (name, recipe) for name, (title, recipe) in recipes.available(config.method).items()}
    current = recipes.followed(config) or _OWN
    titles = [_OWN, *known]
    chosen = st.selectbox(
        "Recipe",
        titles,
        index=titles.index(current),
        key=draft.widget_key(f"train_recipe_{config.method}_{current}"),
        width=420,
        help=terms.help_text(
            "recipe",
            first="Settings that authors used: epochs, learning rate, batch size and so on. Choosing one replaces "
            "yours.",
        ),
    )
    if current != _OWN:
        recipe = known[current][1]
        page.note(escape(f"Source: {recipe.source}." + (f" Differences: {recipe.note}." if recipe.note else "")))
    if chosen not in (current, _OWN):
        draft.change(**recipes.values_of(config, known[chosen][0]))
        draft.write_address("task", "mask", "set")
        st.rerun()
