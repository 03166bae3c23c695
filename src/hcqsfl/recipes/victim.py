"""A finished training, as an attack meets it: what adversaries see of it, and the truth, which only scorers get."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from hcqsfl import build
from hcqsfl.config import Config
from hcqsfl.data.folds import Fold
from hcqsfl.data.windows import Windows
from hcqsfl.federated import checkpoint
from hcqsfl.models.learner import Network
from hcqsfl.models.protocols import Setup
from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation, Target, observe
from hcqsfl.privacy.record import Record, read_record
from hcqsfl.privacy.threats import THREATS
from hcqsfl.randomness import numpy_generator
from hcqsfl.recipes.run_folder import RunFolder
from hcqsfl.registry import lookup


@dataclass(frozen=True, eq=False)
class Truth:
    """What an adversary wants to know, row by row as in ``Observation.targets``.

    Attributes:
        x: windows ``(n, n_chans, n_times)``, scaled.
        y: ``(n,)`` labels.
        subject: ``(n,)`` whose they are.
        index: ``(n,)`` places among the training windows.
        start: ``(n,)`` places of their first samples, for gaps in time.
    """

    x: Tensor
    y: Tensor
    subject: np.ndarray
    index: np.ndarray
    start: np.ndarray


@dataclass(eq=False)
class Victim:
    """One training of a run, with all that was recorded of it.

    Attributes:
        config: of the run.
        arm, seed, fold: which training.
        folder: where it is.
        windows: all windows of the run.
        prepared: those of the fold.
    """

    config: Config
    arm: build.Arm
    seed: int
    fold: Fold
    folder: Path
    windows: Windows
    prepared: build.Prepared

    @cached_property
    def setup(self) -> Setup:
        """The federation as trained to its last round."""
        made = build.setup(self.config, self.arm, self.seed, self.prepared)
        tensors, _ = checkpoint.load(self.folder / "checkpoint.safetensors")
        made.federation.load_tensors(tensors)
        return made

    def twins(self) -> tuple[str, ...]:
        """Return the other arms of the run that were trained on the same fold and seed by the same protocol."""
        found = []
        for arm in build.arms(self.config):
            same = not arm.reference and arm.protocol == self.arm.protocol and arm.name != self.arm.name
            if same and (self._job(arm) / "checkpoint.safetensors").is_file():
                found.append(arm.name)
        return tuple(found)

    def twin(self, name: str) -> "Victim":
        """Return the training of another arm on the same fold and seed.

        Raises:
            ValueError: there is no such arm.
        """
        arm = lookup("arm", {arm.name: arm for arm in build.arms(self.config)}, name)
        return Victim(self.config, arm, self.seed, self.fold, self._job(arm), self.windows, self.prepared)

    def _job(self, arm: build.Arm) -> Path:
        return RunFolder(self.folder.parents[3]).job(arm.name, self.seed, self.fold.name)

    def networks(self) -> list[Network]:
        """Return the networks that were tested: those of the round that validation chose."""
        tensors, _ = checkpoint.load(self.folder / "checkpoint.safetensors")
        states: dict[int, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("best/"):
                _, _, place, key = name.split("/", 3)
                states.setdefault(int(place), {})[key] = tensor
        networks = self.setup.networks()
        for i, network in enumerate(networks):
            network.load_state_dict(states[i])
        return networks

    @cached_property
    def record(self) -> Record:
        """What was recorded.

        Raises:
            FileNotFoundError: nothing; the message says which setting records.
        """
        return read_record(self.folder)

    @cached_property
    def _released(self) -> list[np.ndarray]:
        """The training windows of each recorded step."""
        dealt = build.dealt(self.config, self.prepared)
        by_name = {client.name: client for client in self.setup.federation.clients}
        passes = {name: getattr(client.defence, "passes", 1) for name, client in by_name.items()}
        batches: dict[tuple[str, int], list[Tensor]] = {}
        found = []
        for exchange in self.record.exchanges:
            key = (exchange.client, exchange.round)
            if key not in batches:
                batches[key] = list(by_name[exchange.client].batches(self.seed, exchange.round))
            found.append(dealt[exchange.client][batches[key][(exchange.step - 1) // passes[exchange.client]].numpy()])
        return found

    def targets(
        self, n: int, subjects: Collection[str] | None = None
    ) -> tuple[list[Target], Truth, dict[int, list[Target]]]:
        """Choose windows to ask about: up to ``n``, in their last release.

        They are drawn evenly over subjects; from all alike where the split is not by subject, since hosts that send
        much and little would else count the same.

        Args:
            n: how many at most.
            subjects: ask about these alone; about all unless given.

        Returns:
            The targets, the truth about them, and for each the other rows that carry the same window.
        """
        releases: dict[int, list[Target]] = {}
        for i, index in enumerate(self._released):
            for row, window in enumerate(index.tolist()):
                releases.setdefault(window, []).append(Target(i, row))
        subject = self.prepared.training.subject
        drawn = numpy_generator(self.seed, "targets").permutation(sorted(releases)).tolist()
        drawn = [window for window in drawn if subjects is None or str(subject[window]) in subjects]
        by_subject = self.fold.by == "subject"
        queues: dict[str, list[int]] = {}
        for window in drawn:
            queues.setdefault(str(subject[window]) if by_subject else "", []).append(window)
        chosen: list[int] = []
        while len(chosen) < min(n, len(drawn)):
            for name in sorted(queues):
                if queues[name] and len(chosen) < n:
                    chosen.append(queues[name].pop())
        targets = [releases[window][-1] for window in chosen]
        others = {place: releases[window][:-1] for place, window in enumerate(chosen)}
        return targets, self.truth(np.array(chosen)), others

    def truth(self, index: np.ndarray) -> Truth:
        """Return the truth about training windows."""
        training = self.prepared.training
        return Truth(
            self.prepared.x["train"][index],
            self.prepared.y["train"][index],
            training.subject[index],
            index,
            training.start[index],
        )

    def observe(self, threat: str, targets: Sequence[Target] = ()) -> Observation:
        """Return what a threat model sees of this training.

        Raises:
            ValueError: there is no such threat model.
            NotApplicable: the protocol exposes nothing to it.
            FileNotFoundError: what it sees was not recorded.
        """
        seen = THREATS.get(threat)
        shares = self.config.federation.label_sharing
        if seen is not None and seen.behaviour == "query":
            network = self.networks()[0]
            made = Observation(threat, shares, query=partial(_ask, network))
            return replace(made, network=network) if seen.inside else made
        made = observe(self.record, threat, label_sharing=shares, targets=targets)
        if not (made.exchanges or made.updates or made.client_states):
            raise NotApplicable(
                f"{threat} sees nothing of {self.arm.protocol}: nothing crosses a cut there and no states are handed in"
            )
        return made

    def knowledge(self, **more: object) -> Knowledge:
        """Return what adversaries know: auxiliary windows of the fold's validation and test subjects, and the settings.

        Raises:
            ValueError: an auxiliary subject is among the victims.
        """
        parts = ("validation", "test")
        x = torch.cat([self.prepared.x[part] for part in parts])
        y = torch.cat([self.prepared.y[part] for part in parts])
        subject = np.concatenate([self.windows.subject[self.fold.validation], self.windows.subject[self.fold.test]])
        if self.fold.by == "subject":
            check_disjoint(subject.tolist(), self.prepared.training.subject.tolist())
        f, t, dp = self.config.federation, self.config.training, self.config.dp_sgd
        made = Knowledge(
            x,
            y,
            subject.tolist(),
            len(self.windows.classes),
            partial(self._fresh, "front"),
            partial(self._fresh, "trunk"),
            partial(self._fresh, "head"),
            training={
                "batch_size": f.batch_size,
                "local_epochs": f.local_epochs,
                "local_steps": f.local_steps,
                "learning_rate": t.learning_rate,
                "optimizer": t.optimizer,
                "momentum": t.momentum,
                "weight_decay": t.weight_decay,
                "rounds": f.rounds,
                "class_weights": self.prepared.class_weights,
                "protocol": self.arm.protocol,
                "dp_sgd": dp and dp.model_dump(include={"noise_multiplier", "client_clip", "server_clip"}),
            },
            sfreq=self.windows.sfreq,
            channels=self.windows.channels,
        )
        return replace(made, **more)  # type: ignore[arg-type]

    def _fresh(self, half: str) -> nn.Module:
        drawn = int(torch.randint(2**31, (1,)))
        x = self.prepared.x["train"]
        network = build.network(self.config, self.arm, drawn, self.prepared.training, x.shape[1])
        return network.get_submodule(half)


def check_disjoint(auxiliary: Sequence[str], victims: Sequence[str]) -> None:
    """Refuse an adversary whose own data are those of its victims.

    Raises:
        ValueError: a subject is in both.
    """
    if both := sorted(set(auxiliary) & set(victims)):
        raise ValueError(
            f"the auxiliary subjects {', '.join(both)} are among the victims: an attack that has their data proves "
            "nothing; choose others"
        )


@torch.no_grad()
def _ask(network: Network, x: Tensor) -> Tensor:
    logits: Tensor = network.eval()(x)
    return logits


def victims(
    run: Path,
    config: Config,
    windows: Windows,
    arms: Sequence[str],
    n_folds: int,
    n_seeds: int,
    networks: str = "",
) -> list[Victim]:
    """Return the trainings of a run that are to be attacked, of some arms.

    Args:
        run, config, windows: of the run.
        arms: by name.
        n_folds, n_seeds: the first so many of each.
        networks: instead of those: ``all`` that are finished, so many of them as a number says (folds before seeds), or
            one as ``SEED/FOLD``.

    Raises:
        ValueError, FileNotFoundError: the run has no such arm or training, or is not finished.
    """
    folder = RunFolder(run)
    known = {arm.name: arm for arm in build.arms(config) if not arm.reference}
    folds, seeds = build.make_folds(config, windows), list(config.evaluation.seeds)
    wanted = {(fold.name, seed) for fold in folds[:n_folds] for seed in seeds[:n_seeds]}
    if networks:
        wanted = _chosen(folder, arms, [fold.name for fold in folds], seeds, networks)
    found = []
    for fold in folds:
        if all(name != fold.name for name, _ in wanted):
            continue
        prepared = build.prepare(config, windows, fold)
        for name in arms:
            for seed in (seed for seed in seeds if (fold.name, seed) in wanted):
                where = folder.job(name, seed, fold.name)
                if not (where / "checkpoint.safetensors").is_file():
                    raise FileNotFoundError(
                        f"{run} has no finished training of {name}, seed {seed}, fold {fold.name}: train it to the end "
                        "first"
                    )
                found.append(Victim(config, known[name], seed, fold, where, windows, prepared))
    return found


def _chosen(
    folder: RunFolder, arms: Sequence[str], folds: Sequence[str], seeds: Sequence[int], networks: str
) -> set[tuple[str, int]]:
    """Return the folds and seeds that ``networks`` names, of those that are finished for all arms."""
    pairs = [(fold, seed) for seed in seeds for fold in folds]
    finished = [
        (fold, seed)
        for fold, seed in pairs
        if all((folder.job(arm, seed, fold) / "checkpoint.safetensors").is_file() for arm in arms)
    ]
    if not finished:
        who = ", ".join(arms)
        raise FileNotFoundError(f"{folder.path} has no finished training of {who}: train it to the end first")
    if networks == "all":
        return set(finished)
    if networks.isdecimal() and int(networks) > 0:
        return set(finished[: int(networks)])
    named = {f"{seed}/{fold}": (fold, seed) for fold, seed in finished}
    if networks in named:
        return {named[networks]}
    raise ValueError(
        f"there is no finished training {networks!r}; say all, how many (1 to {len(finished)}), or one of "
        + ", ".join(named)
    )
