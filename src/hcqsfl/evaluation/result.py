"""What an experiment found, as one JSON file with a version.

``summarise`` turns predictions and metric rows of all arms into a ``Result``; nothing in it is typed by hand, the
sentences about the quantum trunk included.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hcqsfl.evaluation.bootstrap import Interval, intervals
from hcqsfl.evaluation.classification import METRICS, applicable, confusion, per_subject, value
from hcqsfl.evaluation.cost import Cost, Row
from hcqsfl.evaluation.files import write_whole
from hcqsfl.evaluation.predictions import Predictions, concatenate
from hcqsfl.evaluation.significance import FEWEST_PAIRS, Comparison, holm, paired

SCHEMA_VERSION = 1
MAJORITY = "majority class"
FEW_SUBJECTS = 10

Key = tuple[int, str]


@dataclass(frozen=True)
class ArmRuns:
    """All trainings of one arm of an experiment.

    Attributes:
        name: unique in the experiment.
        trunk: kind of trunk: ``"hybrid"``, ``"classical"``, ``"frozen"``, ``"fourier"``, or any word for another model.
        protocol: ``"splitfed_v1"``, ``"centralised"``, ….
        n_parameters: trainable parameters of ``front``, ``trunk`` and ``head``.
        predictions: on the test rows, of each (seed, fold).
        majority: predictions of the majority class on the same rows, of each (seed, fold).
        rows: metric rows of this arm; see ``hcqsfl.evaluation.cost``.
        chosen_rounds: the round whose weights were tested, of each (seed, fold), where one was chosen by validation.
    """

    name: str
    trunk: str
    protocol: str
    n_parameters: Mapping[str, int]
    predictions: Mapping[Key, Predictions]
    majority: Mapping[Key, Predictions]
    rows: Sequence[Row]
    chosen_rounds: Mapping[Key, int] = field(default_factory=dict)


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Chosen(_Frozen):
    """The round whose weights were tested."""

    seed: int
    fold: str
    round: int


class Arm(_Frozen):
    """One arm: a trunk under a protocol, or the trivial classifier.

    Attributes:
        metrics: interval of each metric, over units, mean over seeds.
        per_seed: metrics of each seed, folds pooled.
        per_subject: metrics of each subject or host, mean over seeds; empty where rows are the units.
        confusion: counts, row the true class, summed over folds and seeds.
        cost: None for an arm that trained in no round.
    """

    name: str
    trunk: str
    protocol: str
    n_parameters: dict[str, int]
    metrics: dict[str, Interval]
    per_seed: dict[int, dict[str, float | None]]
    per_subject: dict[str, dict[str, float | None]]
    confusion: list[list[int]]
    cost: Cost | None = None
    chosen_rounds: list[Chosen] = []


class ArmComparison(_Frozen):
    """One arm against another in one metric.

    Attributes:
        arm, against: names; the difference is ``arm`` minus ``against``.
        comparison: difference, interval, p-value.
        p_holm: p-value adjusted over all comparisons of this result in the same metric.
        sentence: what that means, in words.
    """

    arm: str
    against: str
    comparison: Comparison
    p_holm: float | None
    sentence: str


class Result(_Frozen):
    """What an experiment found.

    Attributes:
        schema_version: of this file; a reader refuses those it does not know.
        name: of the experiment.
        created: ISO 8601, UTC.
        synthetic: whether any recording was made up; then every page and figure says so.
        classes: names, in the order of the confusion matrices.
        unit: what was resampled: ``"subject"``, ``"host"`` or ``"row"``.
        folds: names of the folds, pooled in each seed.
        seeds: training seeds.
        config, versions, command: what makes the run reproducible.
        data: ``title``, ``n_windows``, ``n_subjects``, ``channels``, ``window_seconds`` and ``class_counts``
            ``{fold: {"train" | "validation" | "test": [count of each class]}}``; ``clients``
            ``{client: [count of each class]}`` and anything else that is worth a line.
        leaks: what the leak scan found: ``kind``, ``what``, ``allowed_by`` (the flag, or None).
        arms: in the order given.
        baselines: the majority class, scored as an arm.
        comparisons: arms against their controls and against the majority class.
        notes: what a reader must know, in sentences.
    """

    schema_version: int = SCHEMA_VERSION
    name: str
    created: str
    synthetic: bool
    classes: list[str]
    unit: str
    folds: list[str]
    seeds: list[int]
    config: dict[str, Any]
    versions: dict[str, str]
    command: str
    data: dict[str, Any]
    leaks: list[dict[str, Any]]
    arms: list[Arm]
    baselines: list[Arm]
    comparisons: list[ArmComparison]
    notes: list[str]

    def to_json(self) -> str:
        """Return the result as JSON text."""
        return self.model_dump_json(indent=2) + "\n"

    def save(self, path: Path) -> None:
        """Write the result as JSON, whole or not at all."""
        write_whole(Path(path), self.to_json().encode())

    @classmethod
    def from_json(cls, text: str, source: str = "the result") -> "Result":
        """Read a result.

        Args:
            text: JSON.
            source: what to call it in an error.

        Raises:
            ValueError: it is cut off, of another schema version, or not a result.
        """
        try:
            content = json.loads(text)
        except json.JSONDecodeError as error:
            raise ValueError(
                f"{source} is not JSON ({error.msg} at line {error.lineno}); it was cut off or edited; "
                "run the experiment again, or resume it"
            ) from error
        version = content.get("schema_version") if isinstance(content, dict) else None
        if version is None:
            raise ValueError(f"{source} is not a result: it names no schema version")
        if version != SCHEMA_VERSION:
            raise ValueError(
                f"{source} has schema version {version}, and this version of hcqsfl reads {SCHEMA_VERSION}; "
                "read it with the version of hcqsfl that wrote it, named under versions"
            )
        try:
            return cls.model_validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"]))
            raise ValueError(f"{source} is not a whole result: {where}: {first['msg']}") from error

    @classmethod
    def load(cls, path: Path) -> "Result":
        """Read a result file.

        Raises:
            ValueError: it is missing, cut off, of another schema version, or not a result.
        """
        path = Path(path)
        if not path.is_file():
            raise ValueError(f"there is no {path.name} in {path.parent}; the run has not finished, or is no run")
        return cls.from_json(path.read_text(encoding="utf-8"), str(path))


def summarise(
    name: str,
    arms: Sequence[ArmRuns],
    *,
    seed: int,
    synthetic: bool,
    config: Mapping[str, Any],
    versions: Mapping[str, str],
    command: str,
    data: Mapping[str, Any],
    leaks: Sequence[Mapping[str, Any]] = (),
    compare: Sequence[tuple[str, str]] | None = None,
    compared_metrics: Sequence[str] = ("macro_f1", "balanced_accuracy", "auroc"),
    n_resamples: int = 2000,
    created: str | None = None,
    notes: Sequence[str] = (),
) -> Result:
    """Score all arms of an experiment, compare them, and say in words what came out.

    The folds of a seed are pooled before scoring. Each arm stands beside the majority class on the same rows.

    Args:
        name: of the experiment.
        arms: at least one; all tested on the same rows.
        seed: root seed of the resampling.
        synthetic: whether any recording was made up.
        config: as resolved.
        versions: of the packages that matter.
        command: that makes this run again.
        data: see ``Result.data``.
        leaks: what the leak scan found.
        compare: pairs of arm names; by default each hybrid arm with every other arm of its protocol.
        compared_metrics: for the comparisons; those that need two classes are left out otherwise.
        n_resamples: of each bootstrap.
        created: ISO 8601; now by default.
        notes: further sentences, put after those that are worked out here.

    Raises:
        ValueError: there is no arm, two arms share a name, a compared arm does not exist, or the arms were not tested
            on the same seeds, folds and rows, or a leak lacks its kind.
    """
    _check(arms, compare)
    for leak in leaks:
        if not {"kind", "what"} <= leak.keys():
            raise ValueError(f"a finding of the leak scan needs a kind and what was found; this one has {dict(leak)}")
    keys = sorted(arms[0].predictions)
    seeds = sorted({s for s, _ in keys})
    pooled = {arm.name: _pool(arm.predictions, seeds) for arm in arms}
    trivial = _pool(arms[0].majority, seeds)
    first = trivial[0]
    names = applicable(first.n_classes)
    if compare is None:
        compare = [(a.name, b.name) for a in arms for b in arms if _is_control(a, b)]
    pairs = [*compare, *((arm.name, MAJORITY) for arm in arms)]
    opponents, unranked = pooled | {MAJORITY: trivial}, pooled | {MAJORITY: _unranked(trivial)}
    comparisons: list[ArmComparison] = []
    for metric in (m for m in compared_metrics if m in names):
        runs = opponents if METRICS[metric].of_confusion else unranked
        found = [paired(runs[a], runs[b], metric, seed=seed, n_resamples=n_resamples) for a, b in pairs]
        adjusted = holm([comparison.p_value for comparison in found])
        kinds = {arm.name: arm.trunk for arm in arms}
        for (a, b), comparison, p_holm in zip(pairs, found, adjusted, strict=True):
            by = first.unit if _by_subject(first, comparison) else ""
            sentence = verdict(_called(a, kinds), _called(b, kinds), comparison, p_holm, by)
            comparisons.append(ArmComparison(arm=a, against=b, comparison=comparison, p_holm=p_holm, sentence=sentence))
    scored = [_arm(arm, pooled[arm.name], seeds, seed, n_resamples) for arm in arms]
    baseline = _baseline(trivial, seeds, seed, n_resamples)
    return Result(
        name=name,
        created=created or datetime.now(UTC).isoformat(timespec="seconds"),
        synthetic=synthetic,
        classes=list(first.classes),
        unit=first.unit,
        folds=sorted({fold for _, fold in keys}),
        seeds=seeds,
        config=_plain(config),
        versions=dict(versions),
        command=command,
        data=_plain(data),
        leaks=[_plain(leak) for leak in leaks],
        arms=scored,
        baselines=[baseline],
        comparisons=comparisons,
        notes=[
            *_caveats(arms, trivial, seeds, synthetic, leaks),
            *_findings(comparisons, compare),
            *(_contrary(comparisons, [*scored, baseline], first) if first.unit != "row" else []),
            *notes,
        ],
    )


def _plain(content: Any) -> Any:
    """Return ``content`` with arrays as lists, paths as text, and every key as text, as JSON has them."""
    if isinstance(content, Mapping):
        return {str(key): _plain(inner) for key, inner in content.items()}
    if isinstance(content, np.ndarray | np.generic):
        return content.tolist()
    if isinstance(content, list | tuple):
        return [_plain(inner) for inner in content]
    return str(content) if isinstance(content, Path) else content


def _is_control(a: ArmRuns, b: ArmRuns) -> bool:
    return a.trunk == "hybrid" and b.trunk != "hybrid" and a.protocol == b.protocol


def _check(arms: Sequence[ArmRuns], compare: Sequence[tuple[str, str]] | None) -> None:
    if not arms:
        raise ValueError("there is no arm to summarise")
    names = [arm.name for arm in arms]
    if len(set(names)) < len(names) or MAJORITY in names:
        raise ValueError(f"arms need names of their own, none of them {MAJORITY!r}; these were given: {names}")
    for pair in compare or ():
        for named in pair:
            if named not in names:
                raise ValueError(f"a comparison names the arm {named!r}, but there are only {', '.join(names)}")
    keys = sorted(arms[0].predictions)
    if not keys:
        raise ValueError(f"the arm {arms[0].name!r} has no predictions")
    for arm in arms:
        if sorted(arm.predictions) != keys or sorted(arm.majority) != keys:
            raise ValueError(
                f"the arms were not run alike: {names[0]} on seeds and folds {keys}, {arm.name} on "
                f"{sorted(arm.predictions)} with the majority class on {sorted(arm.majority)}"
            )
        for key in keys:
            for other in (arm.predictions[key], arm.majority[key]):
                one = arms[0].predictions[key]
                if not (np.array_equal(one.y, other.y) and np.array_equal(one.subject, other.subject)):
                    raise ValueError(
                        f"the arms {names[0]} and {arm.name} (or its majority class) were not tested on the same rows "
                        f"in seed {key[0]}, fold {key[1]}"
                    )


def _pool(predictions: Mapping[Key, Predictions], seeds: Sequence[int]) -> list[Predictions]:
    return [concatenate([predictions[key] for key in sorted(predictions) if key[0] == s]) for s in seeds]


def _arm(arm: ArmRuns, runs: Sequence[Predictions], seeds: Sequence[int], seed: int, n_resamples: int) -> Arm:
    return Arm(
        name=arm.name,
        trunk=arm.trunk,
        protocol=arm.protocol,
        n_parameters=dict(arm.n_parameters),
        metrics=intervals(runs, applicable(runs[0].n_classes), seed=seed, n_resamples=n_resamples),
        cost=Cost.of(arm.rows),
        chosen_rounds=[Chosen(seed=s, fold=f, round=r) for (s, f), r in sorted(arm.chosen_rounds.items())],
        **_scores(runs, seeds),
    )


def _baseline(runs: Sequence[Predictions], seeds: Sequence[int], seed: int, n_resamples: int) -> Arm:
    names = applicable(runs[0].n_classes)
    of_class = [m for m in names if METRICS[m].of_confusion]
    unranked = _unranked(runs)
    scored = intervals(runs, of_class, seed=seed, n_resamples=n_resamples)
    scored |= intervals(unranked, [m for m in names if m not in of_class], seed=seed, n_resamples=n_resamples)
    parts = _scores(runs, seeds)
    for s, p in zip(seeds, unranked, strict=True):
        parts["per_seed"][s] |= {m: value(p, m) for m in names if m not in of_class}
    return Arm(name=MAJORITY, trunk="none", protocol="none", n_parameters={}, metrics=scored, **parts)


def _unranked(runs: Sequence[Predictions]) -> list[Predictions]:
    """Return the majority class with scores that are equal over folds as well.

    The class shares of the folds differ. Pooled, they would rank the folds, and against the truth: a fold whose test
    rows are mostly positive was trained on fewer of them.
    """
    return [replace(p, scores=np.zeros_like(p.scores)) for p in runs]


def _scores(runs: Sequence[Predictions], seeds: Sequence[int]) -> dict[str, Any]:
    names = applicable(runs[0].n_classes)
    return {
        "per_seed": {s: {m: value(p, m) for m in names} for s, p in zip(seeds, runs, strict=True)},
        "per_subject": {} if runs[0].unit == "row" else _subject_means(runs, names),
        "confusion": np.sum([confusion(p) for p in runs], axis=0).tolist(),
    }


def _subject_means(runs: Sequence[Predictions], names: Sequence[str]) -> dict[str, dict[str, float | None]]:
    tables = [per_subject(p) for p in runs]
    result: dict[str, dict[str, float | None]] = {}
    for subject in sorted(set().union(*tables)):
        result[subject] = {}
        for metric in names:
            found = [t[subject][metric] for t in tables if subject in t]
            defined = [v for v in found if v is not None]
            result[subject][metric] = float(np.mean(defined)) if defined else None
    return result


def _called(name: str, kinds: Mapping[str, str]) -> str:
    """Name an arm by its trunk, with its own name where that is another word."""
    words = {
        "hybrid": "quantum trunk",
        "classical": "classical control",
        "frozen": "frozen-circuit control",
        "fourier": "random-Fourier control",
    }
    kind = kinds.get(name, name)
    if list(kinds.values()).count(kind) == 1 and kind in words:
        return words[kind]
    return f"{words[kind]} ({name})" if kind in words else name


def verdict(arm: str, against: str, comparison: Comparison, p_holm: float | None, by: str = "") -> str:
    """Say in one sentence whether an arm is better than another; ``by`` names what the difference is a mean over.

    Better or worse is said where the interval excludes 0 and the test, where there is one, agrees at 0.05 after
    Holm's adjustment; where no test can be made it says so, and everything else is "not better".
    """
    difference, low, high = comparison.difference, comparison.low, comparison.high
    title = METRICS[comparison.metric].title if comparison.metric in METRICS else comparison.metric
    if difference is None:
        return f"The {arm} cannot be compared with the {against} in {title}: {comparison.test}."
    figure = f"{title} difference {f'by {by} ' if by else ''}{signed(difference)}"
    if low is None or high is None:
        return f"Whether the {arm} is better than the {against} cannot be said: {figure}, {comparison.test}."
    figure += f" [{signed(low)}, {signed(high)}]"
    if p_holm is not None:
        figure += f", p {p_text(p_holm) if p_holm < 0.001 else '= ' + p_text(p_holm)} after Holm"
    excludes = low > 0 or high < 0
    word = "better" if low > 0 else "worse"
    if not excludes:
        return f"The {arm} is not better than the {against}: {figure}."
    if p_holm is None:
        return f"The {arm} is {word} than the {against} by the interval alone: {figure}; {comparison.test}."
    if p_holm >= 0.05:
        return f"The {arm} is not significantly {word} than the {against}, though the interval excludes 0: {figure}."
    return f"The {arm} is {word} than the {against}: {figure}."


def signed(number: float, digits: int = 3) -> str:
    """Write a number with its sign, a true minus, and no negative zero."""
    text = f"{abs(number):.{digits}f}"
    if float(text) == 0:
        return text
    return f"{'−' if number < 0 else '+'}{text}"


def p_text(p: float) -> str:
    """Write a p-value to two figures, and small ones as a bound."""
    return "< 0.001" if p < 0.001 else f"{p:.2g}"


def _caveats(
    arms: Sequence[ArmRuns],
    trivial: Sequence[Predictions],
    seeds: Sequence[int],
    synthetic: bool,
    leaks: Sequence[Mapping[str, Any]],
) -> list[str]:
    unit, n_units = trivial[0].unit, trivial[0].n_units
    notes = []
    if synthetic:
        notes.append("SYNTHETIC data: these numbers show that the software works, and nothing about patients.")
    if len(seeds) == 1:
        notes.append(
            f"one seed only ({seeds[0]}): the intervals say how the result would vary over {unit}s, "
            "not over training runs."
        )
    if unit != "row" and n_units < FEW_SUBJECTS:
        notes.append(
            f"few {unit}s ({n_units}): percentile intervals over so few are too narrow"
            + (f", and below {FEWEST_PAIRS} no paired test is made." if n_units < FEWEST_PAIRS else ".")
        )
    if unit == "row":
        notes.append("rows are resampled as if independent; rows of one source are not, so the intervals are narrow.")
    notes += [
        f"leak scan overridden by {leak['allowed_by']}: {leak['what']} ({leak['kind']})."
        for leak in leaks
        if leak.get("allowed_by")
    ]
    sizes = {arm.name: sum(arm.n_parameters.values()) for arm in arms if arm.trunk in ("hybrid", "classical")}
    if sizes and max(sizes.values()) > 1.05 * min(sizes.values()):
        notes.append(
            "the hybrid and classical arms differ by more than 5 % in parameters: "
            + ", ".join(f"{arm} {size}" for arm, size in sizes.items())
            + "."
        )
    return notes


def _by_subject(p: Predictions, comparison: Comparison) -> bool:
    """Whether a difference is a mean over subjects or hosts, and not one of pooled scores."""
    return p.unit != "row" and (comparison.n_units > 1 or comparison.difference is None)


def _contrary(comparisons: Sequence[ArmComparison], arms: Sequence[Arm], p: Predictions) -> list[str]:
    """Return a sentence for each difference over subjects that the pooled scores contradict in sign."""
    of = {arm.name: arm.metrics for arm in arms}
    notes = []
    for c in comparisons:
        name, difference = c.comparison.metric, c.comparison.difference
        one, other = of[c.arm][name].value, of[c.against][name].value
        if difference is None or one is None or other is None or not _by_subject(p, c.comparison):
            continue
        if difference * (one - other) < 0:
            ranked = f", and rows of all {p.unit}s are ranked on one scale" if METRICS[name].of_ranking else ""
            notes.append(
                f"{METRICS[name].title} of {c.arm} minus {c.against} is {signed(difference)} as a mean over {p.unit}s, "
                f"but the scores of all rows pooled are {one:.3f} and {other:.3f}: there {p.unit}s with many rows "
                f"count for more{ranked}."
            )
    return notes


def _findings(comparisons: Sequence[ArmComparison], compare: Sequence[tuple[str, str]]) -> list[str]:
    """Return the sentences of the first metric for each pair of arms, and for arms that do not beat the majority."""
    metric = comparisons[0].comparison.metric if comparisons else None
    notes = []
    for c in comparisons:
        low = c.comparison.low
        beats = low is not None and low > 0
        if c.comparison.metric == metric and ((c.arm, c.against) in compare or not beats):
            notes.append(c.sentence)
    return notes
