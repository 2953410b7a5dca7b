"""What a method chooses: allocation, pruning, growth, redistribution and schedules."""
