"""Where a server is."""

import ipaddress
from dataclasses import dataclass


@dataclass(frozen=True)
class Address:
    """A host and a port.

    Attributes:
        host: a name or an IP address, an IPv6 address without its brackets.
        port: 0 for one that is free.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> "Address":
        """Read ``host:port`` or ``[v6]:port``.

        Raises:
            ValueError: it is neither.
        """
        host, separator, port = text.rpartition(":")
        host = host.removeprefix("[").removesuffix("]")
        if not separator or not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError(f"an address is host:port, not {text!r}")
        return cls(host, int(port))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def check_loopback(self) -> None:
        """Refuse an address that other machines can reach.

        Raises:
            ValueError: it is one.
        """
        try:
            loopback = ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            loopback = self.host == "localhost"
        if not loopback:
            raise ValueError(
                f"without TLS only the loopback may be used, and {self} is reachable by others; leave "
                "deployment.insecure out, or listen at 127.0.0.1"
            )
