"""The paper's PyTorch listings against this code, in one run: `python -m benchmarks`."""
