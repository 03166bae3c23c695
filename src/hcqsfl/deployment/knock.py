"""Why no secure connection comes about, where gRPC tells a client no more than that a socket was closed.

A server that is about to restart closes sockets too, and is back within seconds; a certificate never comes right. A
handshake with Python's ssl tells what this end has against the server, and a look at one's own certificate whether it
has run out since the process was begun. What the server has against this end it tells its own log alone: a gRPC server
sends no alert.
"""

import os
import socket
import ssl
import tempfile
from pathlib import Path

from cryptography import x509

from hcqsfl.deployment import certificates
from hcqsfl.deployment.address import Address
from hcqsfl.deployment.certificates import Identity


def refusal(address: Address, identity: Identity, seconds: float = 5.0) -> str:
    """Shake hands as a client would, and return why that can never succeed; an empty string where it did, or may yet.

    Args:
        address: of the server.
        identity: of the client.
        seconds: for how long to wait.
    """
    if why := certificates.lapsed(x509.load_pem_x509_certificate(identity.certificate)):
        return f"the certificate of {identity.name!r} {why}"
    context = _context(identity)
    try:
        with (
            socket.create_connection((address.host, address.port), timeout=seconds) as plain,
            context.wrap_socket(plain, server_hostname=address.host),
        ):
            return ""
    except ssl.SSLCertVerificationError as error:
        return f"the server's certificate is not accepted: {error.verify_message}"
    except ssl.SSLError as error:
        return "the server speaks no TLS" if error.reason == "WRONG_VERSION_NUMBER" else ""
    except OSError:
        return ""


def _context(identity: Identity) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.set_alpn_protocols(["h2"])
    context.load_verify_locations(cadata=identity.authority.decode())
    with tempfile.TemporaryDirectory() as folder:  # the interface takes files; these are for their owner alone
        path = Path(folder) / "identity"
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "wb") as file:
            file.write(identity.certificate + b"\n" + identity.key)
        context.load_cert_chain(path)
    return context
