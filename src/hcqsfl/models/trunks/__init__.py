"""The server's half of the network."""
