"""Flower (https://flower.ai) carries rounds and authenticates nodes; activations keep to their own gRPC stream."""
