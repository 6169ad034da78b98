"""The network of this folder: timm's with peft's adapter."""

from base import HERE, frozen
from peft import PeftModel


def load():
    """The network in eval mode."""
    return PeftModel.from_pretrained(frozen(), str(HERE)).eval()
