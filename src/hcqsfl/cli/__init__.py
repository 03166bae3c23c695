"""The command line. Heavy imports stand inside the commands, so that ``--help`` answers at once."""

import os
import sys
from collections.abc import Callable

import typer

from hcqsfl.cli import attacks, circuit, data, deployment, detect, experiments
from hcqsfl.cli.noise import noise

app = typer.Typer(
    name="hcqsfl",
    help="Hybrid classical-quantum split federated learning (HCQ-SFL) on Internet-of-Medical-Things data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
experiments.register(app)
attacks.register(app)
app.command()(noise)
deployment.register(app)
app.add_typer(data.app, name="data")
app.add_typer(circuit.app, name="circuit")
app.add_typer(detect.app, name="detect")


def guarded(run: Callable[[], None]) -> int:
    """Run a command; turn what a user can mend into one line on standard error and a status."""
    try:
        run()
    except (ValueError, OSError, FloatingPointError, MemoryError) as error:
        if os.environ.get("HCQSFL_DEBUG"):
            raise
        text = str(error) or type(error).__name__
        sys.stderr.write(f"hcqsfl: {text}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("hcqsfl: interrupted; the same command with --resume goes on from the last round\n")
        return 130
    return 0


def main() -> None:
    """Start here. ``HCQSFL_DEBUG=1`` shows the traceback of an error."""
    sys.exit(guarded(app))
