"""MLAE Lab: masked LoRA experts on a frozen vision transformer."""

# The command line as messages and equivalent commands give it: it also works in a checkout that is not installed.
PROGRAM = "python -m mlae_lab"
