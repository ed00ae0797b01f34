"""How much a gateway costs, beside others: `make bench`, `make bench-peers`."""
