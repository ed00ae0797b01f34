"""What operators see: log, metrics and spans, all from records of finished requests."""
