"""The clients and workers of the peers that are Python libraries, each in a process of its own."""
