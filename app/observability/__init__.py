"""What operators see of a gateway: it listens to events, and takes part in nothing."""
