"""State between requests: counters, circuits, cached responses, calls in flight."""
