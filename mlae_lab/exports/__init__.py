"""Trained networks for other programs: one module for each format of `core.export_formats`.

A module has `write(export, folder) -> Check`: it fills a folder and loads what it wrote with the library that will.
All of it runs in a separate process (`exports.worker`), as it needs torch.
"""
