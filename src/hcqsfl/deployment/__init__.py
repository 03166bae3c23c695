"""The same experiment over real processes and hosts: gRPC streams, mutual TLS, and rounds that survive kills."""
