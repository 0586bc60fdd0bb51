"""Load tests against a plain baseline; figures go to bench/results."""
