"""Selfish Sparse RNN Training for PyTorch Lightning."""
