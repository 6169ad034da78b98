"""Package discovery: pages/ and assets/ lie next to the package and are installed inside it (see pyproject.toml)."""

from setuptools import find_packages, setup

setup(packages=[*find_packages(include=["mlae_lab", "mlae_lab.*"]), "mlae_lab._pages", "mlae_lab._assets"])
