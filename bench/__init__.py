"""Measures what a gateway costs, next to others: `make bench`, `make bench-peers`."""
