"""The client's half of the network."""
