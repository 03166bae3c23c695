"""Transports that listen, and clients that send from some step on what nobody should."""

from collections.abc import Callable
from dataclasses import replace

from hcqsfl.split import Message, Transport, decode, encode

FIRST_BAD_STEP = 2


class Ear:
    """Keeps what crosses."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.heard: list[tuple[bytes, bytes]] = []

    def __call__(self, request: bytes) -> bytes:
        answer = self.transport(request)
        self.heard.append((request, answer))
        return answer


class Harmful:
    """Puts something else in place of a client's messages, from its second step on."""

    def __init__(self, transport: Transport, instead: Callable[[Message], bytes]) -> None:
        self.transport, self.instead = transport, instead

    def __call__(self, request: bytes) -> bytes:
        message = decode(request)
        return self.transport(request if message.step < FIRST_BAD_STEP else self.instead(message))


def filled(message: Message, value: float) -> bytes:
    tensors = {name: t * value if t.is_floating_point() else t for name, t in message.tensors.items()}
    return encode(replace(message, tensors=tensors))


def silent(message: Message) -> bytes:
    raise OSError("the line is dead")


HARM: dict[str, Callable[[Message], bytes]] = {
    "NaN": lambda message: filled(message, float("nan")),
    "infinity": lambda message: filled(message, float("inf")),
    "another shape": lambda m: encode(replace(m, tensors={name: t[:, :1] for name, t in m.tensors.items()})),
    "another version": lambda message: encode(message).replace(b'\\"v\\": 1', b'\\"v\\": 9'),
    "a step twice": lambda message: encode(replace(message, step=1)),
    "a gradient of no open step": lambda message: encode(
        replace(message, kind="backward", tensors={"gradient": next(iter(message.tensors.values()))})
    ),
    "no message": lambda message: b"no message",
    "nothing": silent,
}
