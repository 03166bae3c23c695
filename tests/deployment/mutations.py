"""Mutated frames against everything that reads them: head, message, record, greeting, and the trunk itself."""

import contextlib
from collections import Counter

import numpy as np
import torch

from hcqsfl.deployment import handshake, record
from hcqsfl.deployment.frame import FrameError, Framing, Kind
from hcqsfl.split import Message, TrunkServer, decode, encode
from hcqsfl.split.message import ProtocolError, sender

LIMIT = 2**16
NUMBERS = [0, 1, 2**16, 2**31, 2**53, 2**63 - 1, 2**64 - 1]


def corpus() -> list[bytes]:
    """Valid payloads of every kind that a server reads."""
    x = torch.linspace(-1, 1, 8).reshape(2, 4)
    facts = handshake.to_bytes({"model.n_smashed": 4, "label set": ["rest", "stress"]})
    turn = {"arm": "hybrid", "seed": 0, "fold": "P2", "round": 1, "attempt": 1, "loss": 0.5, "steps": 2}
    return [
        encode(Message("forward", "a", 1, 1, {"smashed": x})),
        encode(Message("backward", "a", 1, 1, {"gradient": x[:, :3].contiguous()})),
        encode(Message("evaluate", "a", 1, 1, {"smashed": x})),
        encode(Message("train", "a", 1, 1, {"smashed": x, "labels": torch.tensor([0, 1])})),
        record.pack(turn, {"state/w": x, "optimizer/0/step": torch.tensor(1.0)}),
        facts,
    ]


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """Flip, cut, repeat, insert or overwrite some bytes."""
    found = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        i = int(rng.integers(0, len(found) + 1))
        what = int(rng.integers(0, 6))
        if what == 0 and i < len(found):
            found[i] ^= 1 << int(rng.integers(8))
        elif what == 1:
            del found[i : i + int(rng.integers(1, 9))]
        elif what == 2:
            found[i:i] = rng.bytes(int(rng.integers(1, 9)))
        elif what == 3:
            found[i : i + 8] = NUMBERS[int(rng.integers(len(NUMBERS)))].to_bytes(8, "little")
        elif what == 4:
            found[i:i] = found[max(0, i - 16) : i]
        elif i < len(found):
            found[i] = int(rng.choice(np.frombuffer(b'{}[]",:0-9e\x00\xff', np.uint8)))
    return bytes(found)


class Reader:
    """Reads a frame as a server does, as far as it gets."""

    def __init__(self) -> None:
        torch.manual_seed(0)
        trunk = torch.nn.Linear(4, 3)
        self.server = TrunkServer(trunk, torch.optim.SGD(trunk.parameters(), lr=1e-6), torch.nn.CrossEntropyLoss())

    def read(self, framing: Framing, data: bytes) -> str:
        """Return how far the bytes got."""
        try:
            payload = framing.unpack(data).payload
        except FrameError:
            return "head"
        self.read_payload(payload)
        return "payload"

    def read_payload(self, payload: bytes) -> None:
        """Give a payload to each of its readers; none may do anything but refuse or answer."""
        try:
            sender(payload)
            decode(payload, LIMIT)
        except ProtocolError:
            pass
        else:
            answer = decode(self.server(payload))
            assert answer.kind in ("error", "features", "gradient")
            self.server.forget("a")
        with contextlib.suppress(record.RecordError):
            record.unpack(payload)
        with contextlib.suppress(ValueError):
            handshake.agree("a", handshake.from_bytes(payload), {})


def mutate_many(n: int, rng: np.random.Generator) -> Counter[str]:
    """Mutate heads and payloads, each half of the time; count how far they got."""
    reader, payloads = Reader(), corpus()
    got: Counter[str] = Counter()
    for _ in range(n):
        there, here = Framing("a", LIMIT, b"s" * 16), Framing("a", LIMIT, b"s" * 16)
        payload = payloads[int(rng.integers(len(payloads)))]
        if rng.integers(2):
            data = mutate(there.pack(Kind.STEP, payload), rng)
        else:
            data = there.pack(Kind.STEP, mutate(payload, rng))
        got[reader.read(here, data)] += 1
    return got
