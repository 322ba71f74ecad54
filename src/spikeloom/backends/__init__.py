"""Backends beside PyTorch, on the same config and checkpoint directory."""
