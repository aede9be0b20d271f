"""What the lab survives, tried whole: ``python -m benchmarks.trust``; the tests try the same with fewer cases."""
