"""Checkpoint files: written whole, read safely, matched to a model."""
