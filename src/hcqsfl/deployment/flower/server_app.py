"""The ServerApp: our recipe, whose turns are Flower messages and whose steps come over our own stream.

Set in the app's configuration: ``config`` (a TOML file), ``out`` (folder of the run), ``cache``, ``resume``.
"""

from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from hcqsfl import config as settings
from hcqsfl.deployment.flower.sealed_server import FlowerSealing
from hcqsfl.deployment.flower.turns import FlowerRounds
from hcqsfl.deployment.journal import Journal
from hcqsfl.deployment.serve import orchestrate, serving
from hcqsfl.recipes.progress import Progress

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run an experiment over a Flower federation."""
    chosen = context.run_config
    config = settings.load(Path(str(chosen["config"])))
    out = Path(str(chosen.get("out") or "runs/flower"))
    cache = Path(str(chosen.get("cache") or ".cache/hcqsfl"))
    log = out.with_name(out.name + ".jsonl")
    with serving(config, cache, Journal(log)) as (plane, _):
        rounds = FlowerRounds(grid, plane.journal)
        orchestrate(
            config,
            out,
            plane,
            rounds,
            make_sealing=partial(FlowerSealing, rounds),
            cache=cache,
            resume=bool(chosen.get("resume", False)),
            progress=Progress(),
            command="flwr run",
        )
