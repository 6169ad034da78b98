"""`alerts`: where this machine sends alerts when a run or a study ends, and a test of it."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

from mlae_lab.cli.output import UsageError, find_store, folder_of, print_result
from mlae_lab.environment import ALERT_COMMAND, ALERT_URL
from mlae_lab.runs import alerts


def add(command: Callable[..., argparse.ArgumentParser]) -> None:
    """Add `alerts`. command: creates a subparser."""
    parser = command("alerts", _alerts, "show where alerts go when a run or a study ends, or send a test", store=True)
    parser.add_argument("--test", action="store_true", help="send a message now")


def _alerts(args: argparse.Namespace) -> int:
    settings, store = alerts.configured(), find_store(args)
    if args.test:
        return _test(args, settings)
    failure = alerts.last_failure(store) if store else None
    lines = [f"{target}, when: {', '.join(settings.on)}" for target in settings.targets]
    if failure:
        lines.append(f"{time.strftime('%Y-%m-%d %H:%M', time.localtime(failure.time))}  {failure.text}")
    result = {
        "targets": list(settings.targets), "on": list(settings.on), "timeout": settings.timeout,
        "settings_file": str(alerts.settings_file()), "last_failure": failure and failure.text,
    }  # fmt: skip
    return print_result(args, result, "\n".join(lines) or _none())


def _none() -> str:
    return f"no alerts: set {ALERT_URL} or {ALERT_COMMAND}, or write {alerts.settings_file()}"


def _test(args: argparse.Namespace, settings: alerts.Alerts) -> int:
    if not settings.is_set:
        raise UsageError(_none())
    message = {"event": "test", "text": "A test of the alerts of MLAE Lab", "store": str(folder_of(args))}
    if errors := alerts.send(settings, message):
        raise UsageError(f"the alert could not be sent: {'; '.join(errors)}")
    return print_result(args, {"sent": list(settings.targets)}, f"sent to {' and '.join(settings.targets)}")
