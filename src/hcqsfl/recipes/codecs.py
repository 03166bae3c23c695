"""Train the same experiment with one codec after another: what is lost against what is saved, in one table."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hcqsfl.config import Config
from hcqsfl.evaluation.bootstrap import Interval
from hcqsfl.evaluation.cost import read_rows
from hcqsfl.evaluation.files import write_whole
from hcqsfl.models.plan import PROTOCOLS
from hcqsfl.recipes.progress import Progress
from hcqsfl.recipes.train import train
from hcqsfl.registry import lookup


@dataclass(frozen=True)
class Variant:
    """A codec as an experiment may set it.

    Attributes:
        codec: a name in ``CODECS``.
        error_feedback: whether gradients make good on what was lost of the last ones.
        options: of the codec.
    """

    codec: str
    error_feedback: bool = False
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """What the variant is called, in tables and folders."""
        told = [self.codec, *(f"{key} {value:g}" for key, value in self.options)]
        return " ".join(told) + (" + feedback" if self.error_feedback else "")


VARIANTS = (
    Variant("none"),
    Variant("float16"),
    Variant("bfloat16"),
    Variant("int8"),
    Variant("int4"),
    Variant("int4", error_feedback=True),
    *(Variant(codec, options=(("share", 0.25),)) for codec in ("topk", "randtopk")),
    Variant("topk", error_feedback=True, options=(("share", 0.25),)),
)


@dataclass(frozen=True)
class Row:
    """What one codec did.

    Attributes:
        codec: the variant's name.
        cut_bytes: that crossed the cut in a round, both ways, as serialised; mean over rounds and trainings.
        share: of those without a codec.
        metrics: name to the score on the test windows, with its interval.
    """

    codec: str
    cut_bytes: float
    share: float
    metrics: Mapping[str, Interval]


def codecs(
    config: Config,
    out: Path,
    *,
    cache: Path,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    variants: Sequence[Variant] = VARIANTS,
    progress: Progress | None = None,
) -> list[Row]:
    """Train the chosen trunk with each codec, and write ``codecs.csv``, ``codecs.json`` and a report a codec.

    Controls, baselines and references are left out: what is compared are the codecs, each beside none.

    Args:
        config: settings; its codec is replaced.
        out: folder; each codec's run has a folder below it.
        cache: folder of parsed windows.
        resume: go on with runs that were interrupted, and begin those that were not begun.
        overwrite: replace the runs in ``out``.
        command: what made this, for the reports.
        variants: the codecs, the first of which the others are held against.
        progress: what to tell of it.

    Raises:
        ValueError: the protocol cuts nothing.
        ValueError, OSError: as ``train``.
    """
    if lookup("protocol", PROTOCOLS, config.federation.protocol).trunk is None:
        raise ValueError(f"{config.federation.protocol} cuts nothing, so that no codec has anything to make smaller")
    rows: list[Row] = []
    for variant in variants:
        changed = {
            "codec": variant.codec,
            "codec_options": dict(variant.options),
            "error_feedback": variant.error_feedback,
        }
        alone = {"controls": (), "baselines": (), "references": (), "without_control": True}
        own = config.model_copy(
            update={
                "name": f"{config.name}, codec {variant.name}",
                "federation": config.federation.model_copy(update=changed),
                "evaluation": config.evaluation.model_copy(update=alone),
            }
        )
        folder = out / variant.name.replace(" + ", "_").replace(" ", "_")
        result = train(
            own,
            folder,
            cache=cache,
            resume=resume and (folder / "config.toml").exists(),
            overwrite=overwrite and folder.exists(),
            command=command,
            progress=progress,
        )
        told = read_rows(folder / "metrics.jsonl")
        cut_bytes = sum(row["bytes_cut"] for row in told) / len(told)
        first = rows[0].cut_bytes if rows else cut_bytes
        rows.append(Row(variant.name, cut_bytes, cut_bytes / first, dict(result.arms[0].metrics)))
    write(rows, out)
    return rows


def write(rows: Sequence[Row], out: Path) -> None:
    """Write the table into a folder."""
    sheet = io.StringIO()
    writer = csv.writer(sheet, lineterminator="\n")
    names = list(rows[0].metrics)
    ends = [f"{name}{end}" for name in names for end in ("", "_low", "_high")]
    writer.writerow(("codec", "cut_bytes_per_round", "share", *ends))
    for row in rows:
        scores = [x for n in names for x in (row.metrics[n].value, row.metrics[n].low, row.metrics[n].high)]
        writer.writerow((row.codec, round(row.cut_bytes), f"{row.share:.4f}", *scores))
    write_whole(out / "codecs.csv", sheet.getvalue().encode())
    write_whole(out / "codecs.json", to_json(rows).encode())


def to_json(rows: Sequence[Row]) -> str:
    """Return the table as JSON."""
    return json.dumps([asdict(row) for row in rows], indent=2) + "\n"
