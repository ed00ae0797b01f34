"""Random gateways and callers: calls that arrive upstream are all permitted."""
