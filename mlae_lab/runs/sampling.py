"""The next setting of a choice, proposed by Optuna's sampler from the runs of the store (the extra `optuna`).

    arms = next_arm(study, {"p = 0.5, λ = 1": {0: 81.5, 1: 82.0}})

The sampler is the tree-structured Parzen estimator (Bergstra et al. 2011, NeurIPS 24): ten random settings, then those
where good ones are more likely than others. It keeps nothing: Optuna's study is rebuilt in memory from the arms and
their accuracies for every proposal, so that the same runs give the same proposals, on any machine and after any stop.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from statistics import fmean

from mlae_lab.core.choice_study import sampled_arm
from mlae_lab.core.study import Arm, Study
from mlae_lab.runs.database import StoreError

_ATTEMPTS = 8


def missing() -> str:
    """Why nothing can be sampled here, one sentence without a full stop; "" if Optuna is installed."""
    if importlib.util.find_spec("optuna") is not None:
        return ""
    return "the sampler needs Optuna, which is not installed: `pip install 'mlae-lab[optuna]'`"


def next_arm(study: Study, accuracies: Mapping[str, Mapping[int, float]]) -> Arm:
    """The arm that a sampler proposes next.

    Args:
        study: With a rule that has a space; all its runs are through.
        accuracies: Arm to seed to accuracy after its last epoch.

    Raises:
        StoreError: Optuna is not installed, or it proposes only settings that the study has.
    """
    if problem := missing():
        raise StoreError(problem)
    import optuna

    assert study.choice is not None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space: dict[str, optuna.distributions.BaseDistribution] = {
        name: optuna.distributions.FloatDistribution(low, high, log=name != "drop_rate" and low > 0)
        for name, low, high in study.choice.space
    }
    bounds = {name: (low, high) for name, low, high in study.choice.space}

    def inside(name: str, text: str) -> float:
        return min(bounds[name][1], max(bounds[name][0], float(text)))

    trials = [
        optuna.trial.create_trial(
            params={name: inside(name, text) for name, text in arm.values if name in space},
            distributions=space,
            value=fmean(accuracies[arm.name][seed] for seed in study.seeds),
        )
        for arm in study.arms
    ]
    for attempt in range(_ATTEMPTS):  # a value is rounded, so that a proposal may be one that was tried
        sampler = optuna.samplers.TPESampler(seed=len(trials) + study.runs * attempt + study.seeds[0])
        known = optuna.create_study(direction="maximize", sampler=sampler)
        known.add_trials(trials)
        arm = sampled_arm(study, known.ask(space).params, 3 if attempt < _ATTEMPTS // 2 else 9)
        if arm is not None:
            return arm
    raise StoreError("the sampler proposes only settings that were tried: the ranges are too narrow")
