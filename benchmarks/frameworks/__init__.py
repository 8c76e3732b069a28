"""What the same rules cost in other frameworks, each measured in its own environment: `make bench-frameworks`."""
