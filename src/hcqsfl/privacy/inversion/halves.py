"""The halves of the victim's network, as an adversary puts them together from the states it sees."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from hcqsfl.federated.update import State
from hcqsfl.privacy.attack import Knowledge
from hcqsfl.privacy.observation import NotApplicable, Observation

HALF_NAMES = ("front", "trunk", "head")


def smashed_shape(observation: Observation) -> torch.Size:
    """Return the shape of one row of smashed data.

    Raises:
        NotApplicable: this adversary sees none.
    """
    if not observation.exchanges:
        raise NotApplicable(f"{observation.threat} sees no smashed data, so there is nothing to invert")
    return observation.exchanges[0].smashed.shape[1:]


def split_front(observation: Observation, knowledge: Knowledge) -> tuple[nn.Module, nn.Module]:
    """Draw a fresh front and cut it where the victims do: into what a client holds and what the server holds of it.

    Where the cut lies is told by the shape of what crosses it.

    Raises:
        NotApplicable: no cut of the front makes smashed data of the shape that crossed.
    """
    return cut_front(smashed_shape(observation), knowledge)


def cut_front(wanted: Sequence[int], knowledge: Knowledge) -> tuple[nn.Module, nn.Module]:
    """Do the same for smashed data of a shape.

    Raises:
        NotApplicable: no cut of the front makes them.
    """
    wanted = torch.Size(wanted)
    front = knowledge.make_front()
    with torch.no_grad():
        made = front.eval()(knowledge.x[:1])
        if made.shape[1:] == wanted:
            return front, nn.Identity()
        x = knowledge.x[:1]
        blocks = list(front.named_children()) if isinstance(front, nn.Sequential) else []
        for i, (_, block) in enumerate(blocks):
            x = block(x)
            if x.shape[1:] == wanted:
                return _named(blocks[: i + 1]), _named(blocks[i + 1 :])
    raise NotApplicable(
        f"smashed data of shape {tuple(wanted)} crossed, but this front makes {tuple(made.shape[1:])} and no cut "
        "inside it fits"
    )


def server_half(observation: Observation, knowledge: Knowledge, number: int | None = None) -> nn.Module:
    """Return the server's half as after a round: smashed data to features, or to logits where labels are shared.

    Args:
        observation, knowledge: of an adversary who sees the server's weights.
        number: of the round; the newest unless given.

    Raises:
        NotApplicable: the adversary does not see them, or they fit none of the halves it can make.
    """
    state = state_of(observation, "trunk_states", number)
    _, rest = split_front(observation, knowledge)
    parts: list[nn.Module] = []
    for name, module in zip(HALF_NAMES, (rest, knowledge.make_trunk(), knowledge.make_head()), strict=True):
        own = below(state, name)
        if own:
            module.load_state_dict(own)
            parts.append(module)
    return nn.Sequential(*parts).eval().requires_grad_(False)


def state_of(observation: Observation, states: str, number: int | None = None, client: str = "") -> State:
    """Return one of ``trunk_states`` or ``client_states``: as after a round, and a client's own where each has one.

    Raises:
        NotApplicable: the adversary sees none.
    """
    held: Mapping[int, Mapping[str, State]] = getattr(observation, states)
    if not held:
        raise NotApplicable(f"{observation.threat} does not see {states.replace('_', ' ')}")
    number = max(held) if number is None else max((n for n in held if n <= number), default=min(held))
    by_client = held[number]
    return by_client.get(client) or by_client[min(by_client)]


def load_front(front: nn.Module, state: State) -> nn.Module:
    """Load a client half's front into ``front`` and return it as it is while clients train."""
    front.load_state_dict(below(state, "front"))
    return front.train().requires_grad_(False)  # as in training: dropout is in what crossed


def front_at(observation: Observation, knowledge: Knowledge, number: int) -> nn.Module:
    """Return the clients' front as half-way through a round, for an adversary who sees it before and after.

    Raises:
        NotApplicable: it does not.
    """
    states = (state_of(observation, "client_states", number - 1), state_of(observation, "client_states", number))
    front, _ = split_front(observation, knowledge)
    return load_front(front, mixed(states, 0.5))


def in_evaluation(front: nn.Module) -> nn.Module:
    """Return ``front`` without dropout."""
    return front.eval()


def below(state: State, name: str) -> dict[str, Tensor]:
    """Return the tensors of one child of a half, under the child's own names."""
    return {key.removeprefix(f"{name}."): tensor for key, tensor in state.items() if key.startswith(f"{name}.")}


def mixed(states: tuple[State, State], share: float) -> State:
    """Return the state that lies ``share`` of the way from the first to the second."""
    first, second = states
    return {
        name: torch.lerp(tensor, second[name], share) if tensor.is_floating_point() else second[name]
        for name, tensor in first.items()
    }


def _named(blocks: list[tuple[str, nn.Module]]) -> nn.Module:
    """Put blocks in a row under the names they had."""
    made = nn.Sequential()
    for name, block in blocks:
        made.add_module(name, block)
    return made


Encode = Callable[[Tensor], Tensor]
"""Windows ``(b, n_chans, n_times)`` to what crosses for them."""
