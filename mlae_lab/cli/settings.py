"""The settings of a run as options of a command."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from mlae_lab.cli.output import UsageError
from mlae_lab.core import catalog, recipes
from mlae_lab.core.config import RunConfig
from mlae_lab.core.plan import MaskPlan
from mlae_lab.core.settings import Setting, settings_of
from mlae_lab.data.tasks import OWN, image_folder, located, own_task_of
from mlae_lab.environment import expanded
from mlae_lab.locations import PROGRAM, weights_file
from mlae_lab.runs.estimate import memory_warning

METHOD_OPTIONS = ("method", "method_settings")  # which a command about masks does not offer
TASK_HELP = "a name that `tasks` lists; --data DIR alone means your own images in DIR"


def add_run_options(
    command: argparse.ArgumentParser, without: Collection[str] = (), described: type = RunConfig
) -> None:
    """Add an option for each setting that has one. What is not given keeps the proposed value.

    Args:
        command: Gets the options; each stores its value under the setting's name.
        without: Names of settings that this command does not offer.
        described: The dataclass whose fields describe the settings.
    """
    for setting in settings_of(described):
        if setting.option and setting.name not in without:
            if setting.kind is tuple:
                command.add_argument(
                    f"--{setting.option}", dest=setting.name, nargs="+", action="extend", default=None,
                    metavar=_metavar(setting), help=setting.help,
                )  # fmt: skip
                continue
            command.add_argument(
                f"--{setting.option}",
                action=_Given if described is RunConfig else "store",
                dest=setting.name,
                type=setting.kind if setting.kind in (int, float) else setting.from_text,
                default=setting.initial,
                metavar=_metavar(setting),
                help=setting.help.replace("%", "%%")
                + (
                    ""
                    if setting.initial in (None, "")
                    else f" (default: {setting.to_text(setting.initial)})".replace("%", "%%")
                ),
            )


class _Given(argparse.Action):
    """Store a value, and its name in `given`, which tells it from a default."""

    def __call__(self, parser, namespace, values, option_string=None) -> None:
        setattr(namespace, self.dest, values)
        namespace.given = {*getattr(namespace, "given", ()), self.dest}


def _metavar(setting: Setting) -> str:
    if setting.metavar:
        return setting.metavar
    choices = ("on", "off") if setting.kind is bool else setting.choices
    return "|".join(choices) or {int: "N", float: "X"}.get(setting.kind, "NAME")


def config_of(args: argparse.Namespace, plan: MaskPlan) -> RunConfig:
    """The run that the options ask for.

    What the census noted about its images, and a warning if the run needs more memory than this machine has, are
    printed to standard error.

    Args:
        args: With a task, and a value for each setting that has an option.
        plan: The mask.

    Raises:
        UsageError: The weights are not on this machine, or `own` comes without a folder.
        ConfigError, CatalogError, DataError: A value is not legal, a name is unknown, the images cannot be used.
    """
    values = {setting.name: getattr(args, setting.name) for setting in settings_of(RunConfig) if setting.option}
    values["method_settings"] = tuple(args.method_settings or ())
    _refuse_settings_of_others(args)
    values["weights"] = checked_weights_file(args.weights, args.backbone)
    task = args.task or (OWN if args.data else "")
    if not task:
        raise UsageError(f"no task is named: add --task with {TASK_HELP}")
    if task == OWN and not args.data:
        raise UsageError("--task own needs --data DIR: name a folder with one subfolder of images for each class")
    if args.data:
        folder = image_folder(args.data)
        task = own_task_of(folder).name if task == OWN else task
        values["data"] = str(folder)
    wanted = RunConfig(task=task, plan=plan, **values)
    if recipe := getattr(args, "recipe", ""):
        given = getattr(args, "given", ())
        wanted = replace(wanted, **{n: v for n, v in recipes.values_of(wanted, recipe).items() if n not in given})
    config = located(wanted, _print_progress)
    for note in config.data_notes:
        print(f"note: {note}", file=sys.stderr)
    if warning := memory_warning(config):
        print(f"warning: {warning}", file=sys.stderr)
    return config


def _refuse_settings_of_others(args: argparse.Namespace) -> None:
    """Raise UsageError for an option that only another method reads: it would be ignored."""
    for setting in settings_of(RunConfig):
        if setting.method not in ("", args.method) and setting.name in getattr(args, "given", ()):
            raise UsageError(f"--{setting.option} is for the method {setting.method}: leave it out with {args.method}")


def _print_progress(done: int, total: int) -> None:
    """Show the progress of the check of a user's images on a terminal."""
    if sys.stderr.isatty():
        end = "\n" if done == total else ""
        print(f"\rchecking the images: {done:,} of {total:,}", end=end, file=sys.stderr, flush=True)


def checked_weights_file(named: str, backbone: str) -> str:
    """The weights file that the run reads, "" for the backbone's own.

    Raises UsageError if there is none, before anything is written.
    """
    if named:
        file = expanded(Path(named), "--weights", "file").absolute()
        if not file.is_file():
            raise UsageError(f"--weights {file} is not a file: name one with the weights of {backbone}")
        return str(file)
    entry = catalog.backbone(backbone)
    if entry.needs_file and not weights_file(entry.name).is_file():
        raise UsageError(
            f"the weights of {entry.name} are not on this machine: fetch them with `{PROGRAM} fetch {entry.name}`, "
            f"put timm's model.safetensors at {weights_file(entry.name)}, or name a file with --weights"
        )
    return ""
