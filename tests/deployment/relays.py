"""A TCP relay that stands between a client and its server."""

import socket
import threading

from hcqsfl.deployment.address import Address


class Relay:
    """Hands every byte of both directions on; a test's own kind may shut the door, or listen."""

    def __init__(self, target: Address) -> None:
        self.target = target
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address("127.0.0.1", self.listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def opens(self, visitor: socket.socket) -> bool:
        """Return whether a visitor is let through; who is not is sent away."""
        return True

    def hear(self, said: bytes) -> None:
        """Take what one side of a connection said, when it is over."""

    def _accept(self) -> None:
        while True:
            try:
                here, _ = self.listener.accept()
            except OSError:
                return
            if not self.opens(here):
                here.close()
                continue
            there = socket.create_connection((self.target.host, self.target.port))
            for source, sink in ((here, there), (there, here)):
                threading.Thread(target=self._relay, args=(source, sink), daemon=True).start()

    def _relay(self, source: socket.socket, sink: socket.socket) -> None:
        own = bytearray()
        try:
            while data := source.recv(65536):
                own += data
                sink.sendall(data)
        except OSError:
            pass
        finally:
            self.hear(bytes(own))
            for end in (source, sink):
                end.close()
