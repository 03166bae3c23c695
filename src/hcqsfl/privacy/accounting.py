"""What noise is worth in (epsilon, delta), told with all that such a number means nothing without.

Two mechanisms, two numbers. Noise on smashed data protects a window from whoever reads the cut, each time it is sent.
DP-SGD protects it from whoever holds the trained models, and hides nothing at the cut. A ``Statement`` says which of
them it is about, and two that are about different things do not add up.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from scipy.optimize import brentq
from scipy.special import log_ndtr

SUBJECTS = ("smashed data", "models", "labels")
"""What is protected."""

LITTLE = 0.4
"""Noise over the clip below which nothing but an upper bound is told of DP-SGD."""

AGREE = 0.05
"""Largest relative difference between two accountants."""


@dataclass(frozen=True)
class Statement:
    """One claim of differential privacy, whole.

    Attributes:
        protects: ``smashed data`` (from whoever reads the cut), ``models`` (from whoever holds them) or ``labels``.
        epsilon: infinite where nothing is guaranteed.
        delta: its chance of failing.
        unit: whose presence or content is hidden: ``window`` or ``subject``.
        relation: between neighbouring data sets, in words.
        accountant: what composed it.
        releases: how often the unit's data were released.
        check: the same by another accountant; ``None`` where there is no other.
        notes: what else a reader must know.

    Raises:
        ValueError: it is about something else.
    """

    protects: str
    epsilon: float
    delta: float
    unit: str
    relation: str
    accountant: str
    releases: int
    check: float | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.protects not in SUBJECTS:
            raise ValueError(f"a statement is about {', '.join(SUBJECTS)}, not {self.protects!r}")

    def __add__(self, other: "Statement") -> "Statement":
        """Compose two claims about the same thing (basic composition).

        Raises:
            TypeError: they are about different things, units or neighbours, so that no sum means anything.
        """
        for what in ("protects", "unit", "relation"):
            mine, theirs = getattr(self, what), getattr(other, what)
            if mine != theirs:
                raise TypeError(
                    f"an epsilon of {self.protects} ({self.unit}, {self.relation}) and one of {other.protects} "
                    f"({other.unit}, {other.relation}) are two claims and do not add up: {mine} is not {theirs}"
                )
        return replace(
            self,
            epsilon=self.epsilon + other.epsilon,
            delta=self.delta + other.delta,
            accountant=f"{self.accountant} + {other.accountant}, basic composition",
            releases=self.releases + other.releases,
            check=None,
            notes=(*self.notes, *other.notes),
        )

    @property
    def vacuous(self) -> bool:
        """Whether it rules out next to nothing: odds may change by more than e^10."""
        return self.epsilon > 10

    def __str__(self) -> str:
        value = (
            "no finite epsilon" if math.isinf(self.epsilon) else f"epsilon {self.epsilon:.3g} at delta {self.delta:g}"
        )
        said = f"{self.protects}: {value} for a {self.unit} ({self.relation}), "
        said += f"{self.releases} releases, by {self.accountant}"
        if self.check is not None:
            said += f" (cross-check {self.check:.3g})"
        if self.vacuous:
            said += "; practically vacuous"
        return said + "".join(f"; {note}" for note in self.notes)


def smashed_data(
    noise_multiplier: float,
    releases: int,
    delta: float = 1e-5,
    *,
    windows: int = 1,
    memoised: bool = False,
    front_moves: bool = True,
    overlap: float = 0.0,
) -> Statement:
    """Return what clipped smashed data with Gaussian noise guarantee.

    Args:
        noise_multiplier: deviation of the noise over the sensitivity (twice the clip).
        releases: how often each window is sent.
        delta: chance of failing.
        windows: of the unit: 1 for a window, all of a person's for a subject.
        memoised: whether a window always gets the same noise.
        front_moves: whether the front changes between releases.
        overlap: share of a window that the next one repeats.

    Raises:
        ValueError: an argument is out of range.

    Source: Dong, Roth & Su (2022), Gaussian differential privacy, corollary 3.3, for the composition of Gaussian
    mechanisms: ``n`` releases are one with the noise divided by ``sqrt(n)``; Balle & Wang (2018), Improving the
    Gaussian mechanism for differential privacy, theorem 8, for its exact epsilon.
    """
    if noise_multiplier < 0 or releases < 1 or windows < 1 or not 0 < delta < 1 or not 0 <= overlap < 1:
        raise ValueError(
            f"noise_multiplier {noise_multiplier}, releases {releases}, windows {windows}, delta {delta}, overlap "
            f"{overlap}: need 0 or more, 1 or more, 1 or more, inside (0, 1), inside [0, 1)"
        )
    unit = "window" if windows == 1 else "subject"
    notes = []
    counted = releases
    if memoised and front_moves and releases > 1:
        notes.append(
            "memoised noise cancels in the difference of two releases of a window while the front moves, so that no "
            "epsilon holds over several"
        )
        noise_multiplier = 0.0
    elif memoised:
        counted = 1
        notes.append("memoised: every further release of a window repeats the first")
    if overlap and unit == "window":
        notes.append(
            f"windows overlap by {overlap:.0%}: a moment of the signal lies in up to {math.ceil(1 / (1 - overlap))}, "
            "for all of which together the noise is worth less"
        )
    if unit == "subject":
        notes.append(f"a subject's {windows} windows change together")
    relation = "replace one " + unit
    composed = counted * windows
    if noise_multiplier == 0:
        return Statement("smashed data", math.inf, delta, unit, relation, "none", counted, notes=tuple(notes))
    exact = gaussian_epsilon(noise_multiplier / math.sqrt(composed), delta)
    epsilon, accountant = exact, "the exact Gaussian curve"
    if exact < 100:  # beyond it PLD takes minutes to say that it is vacuous
        epsilon, accountant = _pld_gaussian(noise_multiplier, composed, delta), "PLD (dp-accounting)"
        _agree(epsilon, exact)
    return Statement(
        "smashed data", epsilon, delta, unit, relation, accountant, counted, exact if epsilon != exact else None,
        tuple(notes),
    )  # fmt: skip


def models(
    noise_multiplier: float,
    sample_rate: float,
    steps: int,
    delta: float = 1e-5,
    *,
    halves: int = 1,
    windows: int = 1,
    overlap: float = 0.0,
) -> Statement:
    """Return what DP-SGD guarantees to a window, or to a subject, of the models that come out.

    Args:
        noise_multiplier: of each half, over its own clip.
        sample_rate: chance of a window to be in a step (Poisson sampling).
        steps: taken by the client that holds it.
        delta: chance of failing.
        halves: halves of the network that each step moves; their joint release is worth ``noise / sqrt(halves)``.
        windows: of the unit.
        overlap: share of a window that the next one repeats.

    Raises:
        ValueError: an argument is out of range, or two accountants disagree.

    Source: Abadi et al. (2016), Deep learning with differential privacy, algorithm 1; Gopi, Lee & Wutschitz (2021),
    Numerical composition of differential privacy (PRV); Koskela et al. (2020) and Doroshenko et al. (2022) for PLD.
    """
    if noise_multiplier < 0 or not 0 < sample_rate <= 1 or steps < 1 or not 0 < delta < 1 or halves < 1:
        raise ValueError(
            f"noise_multiplier {noise_multiplier}, sample_rate {sample_rate}, steps {steps}, delta {delta}, halves "
            f"{halves}: need 0 or more, inside (0, 1], 1 or more, inside (0, 1), 1 or more"
        )
    relation = "add or remove one window"
    notes = ["nothing is claimed for what crosses the cut during training"]
    if overlap:
        notes.append(
            f"windows overlap by {overlap:.0%}: a moment of the signal lies in up to {math.ceil(1 / (1 - overlap))}"
        )
    if noise_multiplier == 0:
        return Statement("models", math.inf, delta, "window", relation, "none", steps, notes=tuple(notes))
    joint = noise_multiplier / math.sqrt(halves)
    if halves > 1:
        notes.append(f"the client's and the server's half move together: the joint noise is {joint:.3g}")
    if joint < LITTLE:
        # the accountants' grids would take hours here to say that it is vacuous
        bound = gaussian_epsilon(joint / math.sqrt(steps), delta)
        how = "the exact Gaussian curve, an upper bound without amplification by sampling"
        made = Statement("models", bound, delta, "window", relation, how, steps, notes=tuple(notes))
        return made if windows == 1 else as_group(made, windows)
    pld = _pld_sampled(joint, sample_rate, steps, delta)
    prv = _prv(joint, sample_rate, steps, delta)
    if prv is not None:
        _agree(prv, pld)
    epsilon, accountant = (pld, "PLD (dp-accounting)") if prv is None else (prv, "PRV (Opacus)")
    made = Statement(
        "models", epsilon, delta, "window", relation, accountant, steps, None if prv is None else pld, tuple(notes)
    )
    return made if windows == 1 else as_group(made, windows)


def as_group(statement: Statement, size: int) -> Statement:
    """Return what a claim for one window is worth for a subject that has ``size`` of them.

    Source: Vadhan (2017), The complexity of differential privacy, lemma 2.2 (group privacy).
    """
    epsilon = statement.epsilon * size
    delta = size * math.exp(min(statement.epsilon * (size - 1), 700)) * statement.delta
    note = f"by group privacy over the {size} windows of a subject"
    if delta >= 1:
        epsilon, delta = math.inf, statement.delta
        note += ", whose delta passes 1: it says nothing"
    return replace(
        statement,
        unit="subject",
        relation="add or remove one subject",
        epsilon=epsilon,
        delta=delta,
        check=None,
        notes=(*statement.notes, note),
    )


def labels(epsilon: float, *, memoised: bool = True, releases: int = 1) -> Statement:
    """Return what randomised response guarantees to one label."""
    counted = 1 if memoised else releases
    note = () if counted == 1 else (f"basic composition over {counted} releases",)
    return Statement(
        "labels", epsilon * counted, 0.0, "window", "replace one label", "randomised response", counted, notes=note
    )


def gaussian_epsilon(noise_multiplier: float, delta: float) -> float:
    """Return the exact epsilon of one Gaussian mechanism.

    Args:
        noise_multiplier: deviation of the noise over the sensitivity.
        delta: chance of failing.

    Source: Balle & Wang (2018), theorem 8.
    """
    mu = 1 / noise_multiplier

    def excess(epsilon: float) -> float:
        first = math.exp(log_ndtr(mu / 2 - epsilon / mu))
        second = math.exp(min(epsilon + log_ndtr(-mu / 2 - epsilon / mu), 700.0))
        return first - second - delta

    if excess(0.0) <= 0:
        return 0.0
    high = 1.0
    while excess(high) > 0:
        high *= 2
    return float(brentq(excess, 0.0, high, xtol=1e-9, rtol=1e-12))


def _pld_gaussian(noise_multiplier: float, times: int, delta: float) -> float:
    events = _extra("dp_accounting")
    return _pld(events.SelfComposedDpEvent(events.GaussianDpEvent(noise_multiplier), times), delta)


def _pld_sampled(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float:
    events = _extra("dp_accounting")
    one = events.PoissonSampledDpEvent(sample_rate, events.GaussianDpEvent(noise_multiplier))
    return _pld(events.SelfComposedDpEvent(one, steps), delta)


def _pld(event: Any, delta: float) -> float:
    accountant = _extra("dp_accounting.pld.pld_privacy_accountant").PLDAccountant()
    return float(accountant.compose(event).get_epsilon(delta))


def _prv(noise_multiplier: float, sample_rate: float, steps: int, delta: float) -> float | None:
    """Return PRV's epsilon; ``None`` where Opacus cannot compute it: without sampling."""
    if sample_rate == 1:
        return None
    accountant = _quietly(lambda: _extra("opacus.accountants")).PRVAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    return float(_quietly(lambda: accountant.get_epsilon(delta)))


def _quietly(run: Callable[[], Any]) -> Any:
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Opacus warns of its own bounds, which the cross-check covers
        return run()


def _agree(first: float, second: float) -> None:
    if abs(first - second) > AGREE * max(first, second) + 0.02:
        raise ValueError(
            f"two accountants disagree on epsilon: {first:.4g} and {second:.4g}; at least one is wrong, so that "
            "neither is reported"
        )


def _extra(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(module)
    except ImportError:
        raise ValueError(
            f"accounting needs {module.partition('.')[0]}, which is not installed: pip install 'hcqsfl[privacy]'"
        ) from None
