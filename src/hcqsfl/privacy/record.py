"""What a run recorded: the messages that crossed the cut, and the states that crossed to and from the fed server."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor

from hcqsfl.federated.rounds import Federation
from hcqsfl.federated.update import State, Update
from hcqsfl.split.message import Message, decode
from hcqsfl.split.transport import UP, read_tap

ROUNDS = "rounds"
TAP = "tap.bin"


@dataclass(frozen=True, eq=False)
class Exchange:
    """One training step of one client, as it crossed the cut; what did not cross is ``None``.

    Attributes:
        client, round, step: where it belongs.
        smashed: ``(b, n_smashed)``, as the server read it: after the defence and the codec.
        features: ``(b, n_features)`` that the server answered.
        gradient_features: ``(b, n_features)``, of the loss to the features, sent by the client (U-shaped).
        gradient_smashed: ``(b, n_smashed)``, of the loss to the smashed data, answered by the server.
        labels: ``(b,)``, where clients share them.
    """

    client: str
    round: int
    step: int
    smashed: Tensor
    features: Tensor | None = None
    gradient_features: Tensor | None = None
    gradient_smashed: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return len(self.smashed)


@dataclass(frozen=True, eq=False)
class RoundStates:
    """The states of one round; round 0 holds what everybody started from.

    Attributes:
        parts: part (``"client"``, ``"trunk"``) to client (``""`` where all share one) to the state after the round.
        updates: part to client to the state that the client handed in.
        examples: client to the number of windows it said it has.
    """

    parts: Mapping[str, Mapping[str, State]]
    updates: Mapping[str, Mapping[str, State]]
    examples: Mapping[str, int]


@dataclass(frozen=True, eq=False)
class Record:
    """All that one training recorded.

    Attributes:
        exchanges: steps in the order in which they crossed.
        rounds: round to its states.
    """

    exchanges: Sequence[Exchange]
    rounds: Mapping[int, RoundStates]


def save_round(folder: Path, federation: Federation, updates: Mapping[str, Sequence[Update]]) -> None:
    """Write the states of the round that has just ended, or of round 0, below ``folder``.

    Args:
        folder: of the training.
        federation: whose.
        updates: part to what clients handed in.
    """
    held: dict[str, Tensor] = {}
    for part in federation.parts:
        for client, state in part.final_states().items():
            held |= {f"state|{part.name}|{client}|{name}": tensor for name, tensor in state.items()}
    for name, each in updates.items():
        for update in each:
            held |= {f"update|{name}|{update.client}|{key}": tensor for key, tensor in update.state.items()}
            held[f"examples|{update.client}"] = torch.tensor(update.num_examples)
    path = folder / ROUNDS / f"{federation.round:05d}.safetensors"
    path.parent.mkdir(exist_ok=True)
    partial = path.with_suffix(".partial")
    # copies, since the format refuses tensors that share memory, as a global state and its sender's update may
    safetensors.torch.save_file({name: tensor.clone().contiguous() for name, tensor in held.items()}, partial)
    partial.replace(path)


def read_record(folder: Path) -> Record:
    """Read what a training recorded.

    Args:
        folder: of the training.

    Raises:
        FileNotFoundError: it recorded nothing; the message says which setting does.
        ValueError: the recording is damaged.
    """
    if not (folder / TAP).is_file() and not (folder / ROUNDS).is_dir():
        raise FileNotFoundError(
            f"{folder} holds no recording of what crossed the cut: train with --set recording.tap=true"
        )
    exchanges = list(read_exchanges(folder / TAP)) if (folder / TAP).is_file() else []
    return Record(exchanges, {int(p.stem): read_round(p) for p in sorted((folder / ROUNDS).glob("*.safetensors"))})


def read_round(path: Path) -> RoundStates:
    """Read the states of one round.

    Raises:
        ValueError: the file is damaged.
    """
    parts: dict[str, dict[str, dict[str, Tensor]]] = {}
    updates: dict[str, dict[str, dict[str, Tensor]]] = {}
    examples: dict[str, int] = {}
    try:
        held = safetensors.torch.load_file(path)
    except SafetensorError as error:
        raise ValueError(f"the recorded states {path} are damaged: {error}") from None
    for name, tensor in held.items():
        kind, _, rest = name.partition("|")
        if kind == "examples":
            examples[rest] = int(tensor)
            continue
        part, client, key = rest.split("|", 2)
        (parts if kind == "state" else updates).setdefault(part, {}).setdefault(client, {})[key] = tensor
    return RoundStates(parts, updates, examples)


def read_exchanges(path: Path) -> Iterator[Exchange]:
    """Yield the training steps that a tap recorded, in the order in which they were begun.

    Raises:
        ValueError: the recording is damaged.
    """
    yield from exchanges(_pairs(path))


def _pairs(path: Path) -> Iterator[tuple[Message, Message]]:
    # clients that train as one batch wait inside one another: the last request is the first to be answered
    asked: list[bytes] = []
    for direction, data in read_tap(path):
        if direction == UP:
            asked.append(data)
        elif asked:
            yield decode(asked.pop()), decode(data)


def exchanges(pairs: Iterable[tuple[Message, Message]]) -> Iterator[Exchange]:
    """Yield the training steps in pairs of requests and answers; evaluations and refused steps are left out.

    Between several parties (vertical split) the holder's share of the smashed data is what counts as smashed.
    """
    opened: dict[str, Exchange] = {}
    for request, answer in pairs:
        if answer.kind == "error":
            continue
        key = request.client
        if request.kind == "forward":
            if key in opened:
                yield opened.pop(key)  # never closed
            opened[key] = Exchange(
                key, request.round, request.step, request.tensor("smashed"), features=answer.tensor("features")
            )
        elif request.kind == "backward" and key in opened:
            yield replace(
                opened.pop(key),
                gradient_features=request.tensor("gradient"),
                gradient_smashed=answer.tensor("gradient"),
            )
        elif request.kind == "train":
            yield Exchange(
                key,
                request.round,
                request.step,
                request.tensor("smashed"),
                gradient_smashed=answer.tensor("gradient"),
                labels=request.tensor("labels"),
            )
    yield from opened.values()
