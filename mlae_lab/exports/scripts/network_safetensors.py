"""The network of this folder, from its merged weights."""

from base import HERE, built, spec
from safetensors.torch import load_file


def load():
    """The network in eval mode."""
    network = built(spec())
    network.load_state_dict(load_file(HERE / "model.safetensors"))
    return network
