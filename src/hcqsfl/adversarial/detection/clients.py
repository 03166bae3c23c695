"""Malicious clients found by the server, from what it sees anyway: their updates, and their smashed data.

Each client of a round becomes a row of features that compare it with the round's core, the majority of clients that lie
closest together, so that a drift of the whole federation cancels out. A detector of ``DETECTORS`` learns such rows from
rounds without attackers, of another run than the one that is judged; half of them fit it, the other half set its
threshold. Then every round is judged, the first included.

The core needs an honest majority. A client's own data differ from the others' also where
it is honest: calibrate on a federation that is partitioned as the judged one is.

Source:
    The core after Blanchard et al. (2017), Machine learning with adversaries, section 4 (Krum's score); direction and
    size of updates after Cao et al. (2021), FLTrust; the moments of smashed data and the quarantine are set here.
"""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hcqsfl.adversarial.detection import AnomalyDetector
from hcqsfl.adversarial.detection.rates import Share, threshold, wilson
from hcqsfl.federated.aggregation.flat import squared_distances, stack
from hcqsfl.federated.update import State, Update

UPDATE_FEATURES = ("log size", "cosine with the core", "log distance from the core", "median cosine with its members")
SMASHED_FEATURES = ("log distance of the mean", "log size of the covariance", "log distance of the covariance")

_TINY = 1e-12


class Moments:
    """Mean and covariance of one client's smashed data, added up message by message."""

    def __init__(self, width: int) -> None:
        self.n = 0
        self._sum = torch.zeros(width, dtype=torch.float64)
        self._products = torch.zeros(width, width, dtype=torch.float64)

    def add(self, smashed: Tensor) -> None:
        """Take in smashed data ``(b, n_smashed)``."""
        rows = smashed.detach().cpu().double().flatten(1)
        self.n += len(rows)
        self._sum += rows.sum(0)
        self._products += rows.T @ rows

    @property
    def mean(self) -> Tensor:
        """``(n_smashed,)``."""
        return self._sum / max(self.n, 1)

    @property
    def covariance(self) -> Tensor:
        """``(n_smashed, n_smashed)``."""
        return self._products / max(self.n, 1) - torch.outer(self.mean, self.mean)


def features(
    state: State, updates: Sequence[Update], moments: Mapping[str, Moments] | None = None
) -> tuple[tuple[str, ...], np.ndarray]:
    """Return the clients of a round in order of their names, and their features ``(n_clients, 4 or 7)``.

    Args:
        state: the global state that the round started from.
        updates: what the clients handed in.
        moments: of each client's smashed data in this round; without them there are four features, not seven.

    Raises:
        ValueError: there are fewer than 3 clients, an update is not fit for the state, or a client's smashed data are
            missing.
    """
    if len(updates) < 3:
        raise ValueError(f"a round of {len(updates)} clients has no majority to compare with; at least 3 are needed")
    stacked = stack("client detection", state, updates)
    columns = _of_updates(stacked.rows)
    if moments is not None:
        columns += _of_smashed(stacked.clients, moments)
    return stacked.clients, torch.stack(columns, 1).numpy()


def core(points: Tensor) -> Tensor:
    """Return which clients lie closest together: the smallest majority around one of them.

    While fewer than half of the clients attack, one that attacks is in it only if it lies where honest ones do; so what
    is compared with the core does not move with how many attack elsewhere, as a median would.

    Args:
        points: ``(n_clients, n_values)``.

    Returns:
        ``(n_clients // 2 + 1,)`` indices.
    """
    distances, order = squared_distances(points).sort(dim=1, stable=True)
    size = len(points) // 2 + 1
    return order[distances[:, :size].sum(1).argmin(), :size]


def _of_updates(rows: Tensor) -> list[Tensor]:
    inside = core(rows)
    sizes = rows.norm(dim=1)
    middle = rows[inside].mean(0)
    away = (rows - middle).norm(dim=1)
    directions = rows / sizes.clamp(min=_TINY)[:, None]
    between = directions @ directions[inside].T
    between[inside, torch.arange(len(inside))] = math.nan  # nobody is compared with itself
    return [
        _log_ratio(sizes, sizes[inside]),
        directions @ middle / middle.norm().clamp(min=_TINY),
        _log_ratio(away, away[inside]),
        between.nanquantile(0.5, dim=1),
    ]


def _log_ratio(sizes: Tensor, inside: Tensor) -> Tensor:
    return torch.log(sizes.clamp(min=_TINY) / inside.quantile(0.5).clamp(min=_TINY)).clamp(-20, 20)


def _of_smashed(clients: Sequence[str], moments: Mapping[str, Moments]) -> list[Tensor]:
    if missing := [client for client in clients if client not in moments or not moments[client].n]:
        raise ValueError(f"no smashed data of client {missing[0]} were seen in this round, though updates were")
    means = torch.stack([moments[client].mean for client in clients])
    covariances = torch.stack([moments[client].covariance for client in clients]).flatten(1)
    inside = core(torch.cat([means, covariances], 1))
    traces = torch.stack([moments[client].covariance.trace().clamp(min=0) for client in clients])
    spread, middle = traces[inside].mean().clamp(min=_TINY).sqrt(), covariances[inside].mean(0)
    return [
        torch.log1p((means - means[inside].mean(0)).norm(dim=1) / spread),
        _log_ratio(traces, traces[inside]),
        torch.log1p((covariances - middle).norm(dim=1) / middle.norm().clamp(min=_TINY)),
    ]


@dataclass(frozen=True)
class Verdict:
    """What was found of one round.

    Attributes:
        number: the round, from 1.
        scores: of each client; the higher, the less like an honest one.
        flagged: the clients above the threshold in this round.
        quarantined: those whose updates no longer count, from this round on or an earlier one.
        trust: the weight of each client in this round's aggregation.
        relative: whether so many were flagged that the less suspicious half was trusted nonetheless.
    """

    number: int
    scores: Mapping[str, float]
    flagged: frozenset[str]
    quarantined: frozenset[str]
    trust: Mapping[str, float]
    relative: bool


class ClientMonitor:
    """Judges the clients of every round; give it to ``trust_weighted`` as the trust.

    Flagged and quarantined clients have trust 0, all others 1. A client that was flagged ``strikes`` times in the last
    ``window`` rounds is quarantined for good, but never so many that less than half of the clients are left; where all
    those left are flagged, the half of them with the lowest scores is trusted.

    Args:
        detector: not yet fitted.
        false_alarms: share of honest client-rounds that may be flagged.
        strikes, window: what a quarantine takes.

    Raises:
        ValueError: ``strikes`` is not between 1 and ``window``.
    """

    def __init__(
        self, detector: AnomalyDetector, *, false_alarms: float = 0.01, strikes: int = 3, window: int = 5
    ) -> None:
        if not 1 <= strikes <= window:
            raise ValueError(f"a quarantine takes 1 to {window} strikes in {window} rounds, not {strikes}")
        self.detector, self.false_alarms, self.strikes, self.window = detector, false_alarms, strikes, window
        self.verdicts: list[Verdict] = []
        self.seen: dict[str, Moments] = {}
        self.recorded: list[np.ndarray] = []
        self.threshold = math.nan

    def see(self, client: str, smashed: Tensor) -> None:
        """Take note of a client's smashed data ``(b, n_smashed)`` in the round that is on."""
        if client not in self.seen:
            self.seen[client] = Moments(smashed.flatten(1).shape[1])
        self.seen[client].add(smashed)

    def record(self, state: State, updates: Sequence[Update]) -> Mapping[str, float]:
        """Note the features of a round without attackers, for ``calibrate``, and trust everybody alike."""
        clients, rows = features(state, updates, self.seen or None)
        self.recorded.append(rows)
        self.seen = {}
        return dict.fromkeys(clients, 1.0)

    def calibrate(self, rounds: Sequence[np.ndarray]) -> None:
        """Learn from rounds without attackers, none of which is judged later.

        Rounds are dealt to fitting and to the threshold in turn, so that both see early and late ones.

        Args:
            rounds: features ``(n_clients, n_features)`` of each, as ``record`` leaves them in ``recorded``.

        Raises:
            ValueError: there are fewer than 2 rounds, or so few client-rounds that no threshold has the share of
                false alarms asked for.
        """
        if len(rounds) < 2:
            raise ValueError(f"calibration needs at least 2 rounds without attackers, not {len(rounds)}")
        fitted, held_out = np.concatenate(rounds[0::2]), np.concatenate(rounds[1::2])
        needed = math.ceil(1 / self.false_alarms) if self.false_alarms > 0 else 0
        if len(held_out) < needed:
            raise ValueError(
                f"a share of false alarms of {self.false_alarms:g} cannot be set by {len(held_out)} client-rounds held "
                f"out; at least {needed} are needed: calibrate over more rounds or allow more false alarms"
            )
        self._centre = np.median(fitted, axis=0)
        spread = np.quantile(fitted, 0.75, axis=0) - np.quantile(fitted, 0.25, axis=0)
        self._scale = np.where(spread > 1e-9, spread / 1.349, 1.0)
        self.detector.fit((fitted - self._centre) / self._scale)
        self.threshold = threshold(self._score(held_out), self.false_alarms)

    def _score(self, rows: np.ndarray) -> np.ndarray:
        return self.detector.scores((rows - self._centre) / self._scale)

    def __call__(self, state: State, updates: Sequence[Update]) -> Mapping[str, float]:
        """Judge a round and return the trust in each client, between 0 and 1.

        Raises:
            ValueError: the monitor was not calibrated, or as ``features``.
        """
        if math.isnan(self.threshold):
            raise ValueError("the client monitor judges a round before it was calibrated on rounds without attackers")
        clients, rows = features(state, updates, self.seen or None)
        if rows.shape[1] != len(self._centre):
            raise ValueError(
                f"the client monitor was calibrated on {len(self._centre)} features of a client, and this round has "
                f"{rows.shape[1]}: smashed data are seen in both or in neither"
            )
        self.seen = {}
        scores = dict(zip(clients, self._score(rows).tolist(), strict=True))
        flagged = frozenset(client for client in clients if scores[client] > self.threshold)
        quarantined = self._quarantine(clients, scores, flagged)
        left = [client for client in clients if client not in quarantined]
        trusted = [client for client in left if client not in flagged]
        relative = not trusted
        if relative:
            trusted = sorted(left, key=lambda client: (scores[client], client))[: math.ceil(len(left) / 2)]
        trust = {client: float(client in trusted) for client in clients}
        self.verdicts.append(Verdict(len(self.verdicts) + 1, scores, flagged, quarantined, trust, relative))
        return trust

    def _quarantine(
        self, clients: Sequence[str], scores: Mapping[str, float], flagged: frozenset[str]
    ) -> frozenset[str]:
        before = self.verdicts[-1].quarantined if self.verdicts else frozenset()
        recent = [*(v.flagged for v in self.verdicts[-self.window + 1 :] if self.window > 1), flagged]
        struck = [c for c in clients if c not in before and sum(c in f for f in recent) >= self.strikes]
        room = max(0, (len(clients) - 1) // 2 - len(before))
        worst = sorted(struck, key=lambda client: (-scores[client], client))[:room]
        return before | frozenset(worst)


@dataclass(frozen=True)
class ClientRates:
    """How well clients were told apart, over all rounds.

    Attributes:
        detection: share of the attackers' client-rounds that were flagged or in quarantine.
        false_positives: share of the honest ones that were.
        detection_by_score, false_positives_by_score: shares flagged by the round's own score, quarantine or not.
        quarantined_attackers, quarantined_honest: clients in quarantine after the last round of each run.
        n_rounds: rounds counted, from the first.
    """

    detection: Share
    false_positives: Share
    detection_by_score: Share
    false_positives_by_score: Share
    quarantined_attackers: Share
    quarantined_honest: Share
    n_rounds: int


def client_rates(
    verdicts: Sequence[Verdict], attackers: Collection[str] | Callable[[int], Collection[str]]
) -> ClientRates:
    """Count detections and false positives over all rounds, the first included.

    Rounds of one client resemble one another, so that Wilson's intervals, which take client-rounds as independent, are
    narrow.

    Args:
        verdicts: of every round of one run, or of several runs one after the other, each from its round 1.
        attackers: who attacked, in all rounds or by the round's number.

    Raises:
        ValueError: there is no round.
    """
    if not verdicts:
        raise ValueError("no round was judged, so there is nothing to count")
    out, scored, total = [0, 0], [0, 0], [0, 0]  # of honest clients, of attackers
    held, could = [0, 0], [0, 0]
    ever: set[str] = set()
    for i, verdict in enumerate(verdicts):
        if verdict.number == 1:
            ever = set()
        bad = set(attackers(verdict.number) if callable(attackers) else attackers)
        ever |= bad
        for client in verdict.scores:
            side = client in bad
            total[side] += 1
            scored[side] += client in verdict.flagged
            out[side] += client in verdict.flagged | verdict.quarantined
        if i + 1 == len(verdicts) or verdicts[i + 1].number == 1:
            for client in verdict.scores:
                could[client in ever] += 1
                held[client in ever] += client in verdict.quarantined
    return ClientRates(
        detection=wilson(out[True], total[True]),
        false_positives=wilson(out[False], total[False]),
        detection_by_score=wilson(scored[True], total[True]),
        false_positives_by_score=wilson(scored[False], total[False]),
        quarantined_attackers=wilson(held[True], could[True]),
        quarantined_honest=wilson(held[False], could[False]),
        n_rounds=len(verdicts),
    )
