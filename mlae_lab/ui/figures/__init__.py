"""Figures as functions of arrays, without Streamlit: data in, Plotly figure out.

Colours are named by meaning (`@accent`, `@quiet`, ...); `ui/palette.js` has the values.
"""

from mlae_lab.ui.figures.activation import against_figure, class_figure
from mlae_lab.ui.figures.bars import balance_figure
from mlae_lab.ui.figures.base import MAX_POINTS, Figure, Reference, Running, thinned
from mlae_lab.ui.figures.compare import (
    MASK_KEY,
    difference_caption,
    difference_figure,
    mask_difference_figure,
    two_curves_figure,
)
from mlae_lab.ui.figures.curves import accuracy_figure, loss_figure, paper_figure, similarity_curve
from mlae_lab.ui.figures.errors import (
    CLASSES_NOTE,
    CONFUSION_NOTE,
    PAIRED_TESTS_NOTE,
    RELIABILITY_NOTE,
    class_accuracy_figure,
    confusion_figure,
    paired_tests_figure,
    reliability_figure,
)
from mlae_lab.ui.figures.grids import (
    PLAIN,
    QUANTITIES,
    cosine_reach,
    expert_figure,
    layer_grid_figure,
    similarity_tiles,
)
from mlae_lab.ui.figures.lessons import (
    LiveCurve,
    LiveValues,
    answer_figure,
    class_guess_figure,
    lesson_curves_figure,
)
from mlae_lab.ui.figures.maps import maps_figure
from mlae_lab.ui.figures.methods import methods_figure, ranking_figure, table_figure
from mlae_lab.ui.figures.predict import classes_figure, two_answers_figure, without_figure
from mlae_lab.ui.figures.search import chosen_figure, search_figure
from mlae_lab.ui.figures.seeds import SEEDS_NOTE, seeds_figure
from mlae_lab.ui.figures.statistics import statistic_figure
from mlae_lab.ui.figures.whatif import (
    cell_figure,
    class_change_figure,
    greedy_figure,
    importance_figures,
    layers_figure,
    robustness_figure,
)

__all__ = [
    "CLASSES_NOTE",
    "CONFUSION_NOTE",
    "MASK_KEY",
    "MAX_POINTS",
    "PAIRED_TESTS_NOTE",
    "PLAIN",
    "QUANTITIES",
    "RELIABILITY_NOTE",
    "SEEDS_NOTE",
    "Figure",
    "LiveCurve",
    "LiveValues",
    "Reference",
    "Running",
    "accuracy_figure",
    "against_figure",
    "answer_figure",
    "balance_figure",
    "cell_figure",
    "chosen_figure",
    "class_accuracy_figure",
    "class_change_figure",
    "class_figure",
    "class_guess_figure",
    "classes_figure",
    "confusion_figure",
    "cosine_reach",
    "difference_caption",
    "difference_figure",
    "expert_figure",
    "greedy_figure",
    "importance_figures",
    "layer_grid_figure",
    "layers_figure",
    "lesson_curves_figure",
    "loss_figure",
    "maps_figure",
    "mask_difference_figure",
    "methods_figure",
    "paired_tests_figure",
    "paper_figure",
    "ranking_figure",
    "reliability_figure",
    "robustness_figure",
    "search_figure",
    "seeds_figure",
    "similarity_curve",
    "similarity_tiles",
    "statistic_figure",
    "table_figure",
    "thinned",
    "two_answers_figure",
    "two_curves_figure",
    "without_figure",
]  # fmt: skip
