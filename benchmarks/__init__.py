"""What sparse training costs, measured: ``python -m benchmarks``. Nothing of the package imports this."""
