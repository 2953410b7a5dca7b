"""What a training run's folder holds, and how it comes about."""
