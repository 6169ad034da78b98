"""The fine-tuning methods: each is a package with its description (`__init__`, no torch) and its layers (torch)."""
