"""Request features that behave oddly. Other processes can import them."""

from decimal import Decimal

import pyarrow as pa

from seeknal import request_feature

RATES = {"web": 0.5, "store": 2.0}
seen = []
"""What `counts_calls` was called with."""


@request_feature(outputs={"first_long": "string"})
def first_long(words):
    """Return the first long word. Without one, `next` raises StopIteration."""
    return next(word for word in words.split() if len(word) > 3)


@request_feature(outputs={"length": "float64"}, mode="array")
def length(first_long):
    """Return the lengths of words."""
    return [float(len(word)) for word in first_long]


@request_feature(outputs={"rate": "float64"})
def rate(channel):
    """Return the rate of a channel. Others than the known ones fail."""
    return RATES[channel]


@request_feature(outputs={"cents": "int64"})
def cents(coupon):
    """Return an amount in cents."""
    return None if coupon is None else int(coupon * Decimal(100))


@request_feature(outputs={"counts_calls": "int64"})
def counts_calls(cart_value):
    """Return how often it was called, which is no feature."""
    seen.append(cart_value)
    return len(seen)


@request_feature(outputs={"share": "float64"})
def share(size, cart_value):
    """Return a share, which fails for a cart of 0."""
    return size / cart_value


@request_feature(outputs={"sizes": pa.list_(pa.int64())})
def sizes(size):
    """Return a list."""
    return [size, size]
