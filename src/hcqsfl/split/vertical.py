"""Vertical split learning: several parties hold different sensors of the same windows.

Each party sends its part of the smashed data; the server joins them before the trunk. The last party, the *holder*, has
the labels and the head: its messages open and close the step, and each other party fetches its own gradient.

Source: Vepakomma et al. (2018), Split learning for health, section 3; Ceballos et al. (2020), SplitNN-driven vertical
partitioning.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hcqsfl.split.codecs.pair import CutCodec
from hcqsfl.split.message import Message, ProtocolError
from hcqsfl.split.remote import RemoteTrunk
from hcqsfl.split.server import TrunkServer, check_floating
from hcqsfl.split.transport import Transport


class VerticalTrunkServer(TrunkServer):
    """A ``TrunkServer`` whose smashed data arrive in parts.

    A client has parts of one step open at a time; parts of another step take their place.

    Args:
        trunk, optimizer, max_bytes: as in ``TrunkServer``.
        parties: names of the parties in the order in which their parts are joined; the last one is the holder.
    """

    def __init__(
        self,
        trunk: nn.Module,
        optimizer: torch.optim.Optimizer | None,
        parties: tuple[str, ...],
        **options: Any,
    ) -> None:
        super().__init__(trunk, optimizer, **options)
        self.parties = parties
        self._parts: dict[str, dict[str, tuple[int, int, Tensor]]] = {}
        self._widths: dict[str, list[int]] = {}
        self._gradients: dict[str, dict[str, tuple[int, int, Tensor]]] = {}
        self._handlers |= {"part": self._part, "fetch": self._fetch}

    def _part(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        party = self._party(message)
        smashed = check_floating(message, "smashed")
        self._parts.setdefault(message.client, {})[party] = (message.round, message.step, smashed)
        return "accepted", {}

    def _fetch(self, message: Message) -> tuple[str, dict[str, Tensor]]:
        party = self._party(message)
        held = self._gradients.get(message.client, {}).get(party)
        if held is None or held[:2] != (message.round, message.step):
            raise ProtocolError(
                f"party {party} of client {message.client} asked for a gradient of round {message.round}, "
                f"step {message.step}, which is not there"
            )
        del self._gradients[message.client][party]
        return "gradient", {"gradient": held[2]}

    def _party(self, message: Message) -> str:
        others = self.parties[:-1]
        if message.text not in others:
            raise ProtocolError(f"there is no party {message.text!r} that sends parts; there are: {', '.join(others)}")
        return message.text

    def _smashed(self, message: Message) -> Tensor:
        own = check_floating(message, "smashed")
        held = self._parts.get(message.client, {})
        parts = []
        for party in self.parties[:-1]:
            number, step, part = held.get(party, (-1, -1, own))
            if (number, step) != (message.round, message.step):
                raise ProtocolError(
                    f"the part of party {party} for round {message.round}, step {message.step} of client "
                    f"{message.client} is not there"
                )
            if len(part) != len(own):
                raise ProtocolError(f"party {party} sent {len(part)} windows, the holder {len(own)}")
            parts.append(part)
        self._parts.pop(message.client, None)
        self._widths[message.client] = [part.shape[1] for part in parts] + [own.shape[1]]
        return torch.cat([*parts, own], dim=1)

    def _answer_gradient(self, gradient: Tensor, message: Message) -> Tensor:
        *others, own = gradient.split(self._widths[message.client], dim=1)
        self._gradients[message.client] = {
            party: (message.round, message.step, part.contiguous())
            for party, part in zip(self.parties[:-1], others, strict=True)
        }
        return own.contiguous()


class RemoteVerticalTrunk(RemoteTrunk):
    """The trunk behind as many wires as there are parties; ``(b, sum of widths)`` to ``(b, n_features)``.

    Args:
        transports: party to what carries its bytes; the last party is the holder.
        widths: party to the width of its part, in the same order.
        client: who speaks.
        codec: makes what is sent smaller.

    Raises:
        ValueError: transports and widths name different parties.
    """

    def __init__(
        self,
        transports: Mapping[str, Transport],
        widths: Mapping[str, int],
        client: str,
        codec: CutCodec | None = None,
    ) -> None:
        if list(transports) != list(widths) or not transports:
            raise ValueError(f"there are wires for {', '.join(transports)} but widths for {', '.join(widths)}")
        *others, holder = transports
        super().__init__(transports[holder], client, codec)
        self.widths = list(widths.values())
        self.others = {party: transports[party] for party in others}

    def send_smashed(self, smashed: Tensor, kind: str, step: int) -> Tensor:
        """Send each party's part, the holder's last, and return the features."""
        *parts, own = smashed.split(self.widths, dim=1)
        for party, part in zip(self.others, parts, strict=True):
            self.ask("part", "accepted", step, transport=self.others[party], text=party, smashed=part)
        return self.ask(kind, "features", step, smashed=own).tensor("features")

    def send_gradient(self, gradient: Tensor, step: int) -> Tensor:
        """Send the gradient of the features, and return those of all parts, side by side."""
        own = self.ask("backward", "gradient", step, gradient=gradient).tensor("gradient")
        fetched = [
            self.ask("fetch", "gradient", step, transport=transport, text=party).tensor("gradient")
            for party, transport in self.others.items()
        ]
        return torch.cat([*fetched, own], dim=1)
