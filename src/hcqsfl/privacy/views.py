"""What an attack reads of an observation, one row a thing to be guessed about."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hcqsfl.federated.update import State
from hcqsfl.privacy.observation import NotApplicable, Observation, Target

VIEWS = ("smashed", "features", "gradient_features", "gradient_smashed", "updates", "windows")
"""What rows can be made of; ``windows`` are ``asked_x``: raw recordings, or reconstructions."""


def rows(observation: Observation, view: str) -> Tensor:
    """Return ``(n, width)``: one row for each target, each update (by round, then client), or each window asked about.

    Raises:
        NotApplicable: this adversary does not see it.
        ValueError: there is no such view.
    """
    if view not in VIEWS:
        raise ValueError(f"an attack can read {', '.join(VIEWS)}, not {view!r}")
    if view == "windows":
        if observation.asked_x is None:
            raise NotApplicable(f"{observation.threat} was given no windows to read")
        return observation.asked_x.flatten(1)
    if view == "updates":
        return torch.stack([delta for _, _, delta in deltas(observation)])
    return observation.stacked(view)


def averaged(observation: Observation, releases: Mapping[int, Sequence[Target]], view: str = "smashed") -> Tensor:
    """Return ``(n_targets, width)``: each target's row averaged with its other releases, where they can be linked.

    Noise drawn afresh for each release averages out; so does what training changed between them.

    Args:
        observation: of the cut.
        releases: place of a target to the other rows that carry the same window.
        view: what of a row.

    Raises:
        NotApplicable: this adversary does not see it.
    """
    own = observation.stacked(view)
    found = own.clone()
    for place, others in releases.items():
        rows_ = [getattr(observation.exchanges[other.exchange], view)[other.row] for other in others]
        if rows_:
            found[place] = torch.stack([own[place], *rows_]).mean(dim=0)
    return found


def compact(x: Tensor) -> Tensor:
    """Return ``x (n, width)`` in coordinates of its rows' span where they are wider than many: distances stay."""
    if x.shape[1] <= len(x):
        return x
    left, sizes, _ = torch.linalg.svd(x, full_matrices=False)
    return left * sizes


def deltas(observation: Observation) -> Sequence[tuple[int, str, Tensor]]:
    """Return round, client and update (what it handed in less what it began from), flattened, by round and client.

    Raises:
        NotApplicable: this adversary sees no updates, or not what they began from.
    """
    found = []
    for number in sorted(observation.updates):
        before = observation.client_states.get(number - 1, {})
        for client in sorted(observation.updates[number]):
            base = before.get("", before.get(client))
            if base is None:
                raise NotApplicable(f"{observation.threat} does not see what the updates of round {number} began from")
            found.append((number, client, flat(observation.updates[number][client], base)))
    if not found:
        raise NotApplicable(f"{observation.threat} sees no updates: no client half is handed in under this protocol")
    return found


def flat(state: State, base: State) -> Tensor:
    """Return ``state - base`` as one vector, tensors in the order of their names."""
    return torch.cat([(state[name] - base[name]).flatten().float() for name in sorted(state)])


def standardised(x: Tensor, by: Sequence[int] | None = None) -> Tensor:
    """Return ``x (n, width)`` with mean 0 and deviation 1 in each column, as measured on the rows ``by``."""
    seen = x if by is None else x[list(by)]
    deviation = seen.std(dim=0, correction=0)
    return (x - seen.mean(dim=0)) / torch.where(deviation > 1e-8, deviation, torch.ones_like(deviation))
