"""Small exact algorithms on tensors."""
