"""The run that the lab proposes first, chosen by experiments on the bundled backbone (LOG.md)."""

from __future__ import annotations

from mlae_lab.core.config import RunConfig
from mlae_lab.core.patterns import uniform
from mlae_lab.core.settings import proposed_values

FIRST_RUN = RunConfig(task="dsprites_loc_rendered", plan=uniform(0.3), **proposed_values(RunConfig))
