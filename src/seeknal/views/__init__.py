"""Feature views: what one model reads, from its definition to its training sets, its answers and its models."""
