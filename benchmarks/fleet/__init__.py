"""What the fleet runner costs, how it scales and recovers, on WebUIs that only wait: `python -m benchmarks.fleet`."""
