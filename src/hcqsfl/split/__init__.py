"""The cut: a module whose forward and backward cross a wire."""

from hcqsfl.split.message import Message, ProtocolError, decode, encode
from hcqsfl.split.remote import RemoteError, RemoteLoss, RemoteTrunk
from hcqsfl.split.server import TrunkServer
from hcqsfl.split.transport import Metered, Tap, Transport, read_tap
from hcqsfl.split.vertical import RemoteVerticalTrunk, VerticalTrunkServer

__all__ = [
    "Message",
    "Metered",
    "ProtocolError",
    "RemoteError",
    "RemoteLoss",
    "RemoteTrunk",
    "RemoteVerticalTrunk",
    "Tap",
    "Transport",
    "TrunkServer",
    "VerticalTrunkServer",
    "decode",
    "encode",
    "read_tap",
]
