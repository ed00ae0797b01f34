"""Random gateways and callers: what arrives upstream stays within the allowance."""
