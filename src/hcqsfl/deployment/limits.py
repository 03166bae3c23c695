"""How large, how long and how often: what both ends of a stream hold each other to."""

from dataclasses import dataclass

from hcqsfl.deployment.frame import OVERHEAD

MAX_HELLO_BYTES = 2**16

STEPS = "/hcqsfl.Plane/Steps"
TURNS = "/hcqsfl.Plane/Turns"


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, times in seconds.

    Attributes:
        step_bytes: largest message across the cut.
        turn_bytes: largest task or result of a turn.
        hello_seconds: until a stream that was opened must have said whose it is.
        step_seconds: until a step must be answered, and for how long a client may be silent in its turn.
        connect_seconds: for how long a client tries to reach the server.
        keepalive_seconds: between two pings; a connection that leaves one unanswered as long is given up.
        beat_seconds: between two signs of life from a server that has nothing else to say.
    """

    step_bytes: int = 2**20
    turn_bytes: int = 2**24
    hello_seconds: float = 10.0
    step_seconds: float = 60.0
    connect_seconds: float = 60.0
    keepalive_seconds: float = 10.0
    beat_seconds: float = 5.0

    def of(self, method: str) -> int:
        """Return the largest payload on a stream of this method."""
        return self.step_bytes if method == STEPS else self.turn_bytes

    def channel_options(self) -> list[tuple[str, int]]:
        """Return what gRPC is to be told at either end."""
        # a frame somewhat over its limit still reaches our own check, which names the client; gRPC ends larger ones
        largest = max(self.step_bytes, self.turn_bytes, MAX_HELLO_BYTES) + OVERHEAD + 2**16
        pings = round(self.keepalive_seconds * 1000)
        return [
            ("grpc.max_receive_message_length", largest),
            ("grpc.max_send_message_length", largest),
            ("grpc.keepalive_time_ms", pings),
            ("grpc.keepalive_timeout_ms", pings),
            ("grpc.http2.ping_timeout_ms", pings),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.http2.min_ping_interval_without_data_ms", pings // 2),
            ("grpc.so_reuseport", 0),
            ("grpc.use_local_subchannel_pool", 1),
        ]
