"""What the codebase costs beside the usual way to do the same: python -m tests.benchmarks."""
