"""Request features that tests of feature views use. Other processes can import them."""

import time
from pathlib import Path

import numpy as np

from seeknal import request_feature


@request_feature(outputs={"basket_vs_usual": "float64"}, mode="array")
def basket_vs_usual(cart_value, spend_30d, trips_30d):
    """Return the value of a cart in usual carts; NaN before the first trip."""
    return cart_value / (spend_30d / trips_30d)


@request_feature(outputs={"costs_more": "bool", "gap": "float64"}, mode="row")
def costs(cart_value, price):
    """Return whether a cart is worth more than a product, and by how much."""
    if cart_value is None or price is None:
        return None, None
    return cart_value > price, cart_value - price


@request_feature(outputs={"log_price": "float64"}, mode="array")
def log_price(price):
    """Return the logarithm of a price, which needs no request value."""
    return np.log1p(price)


@request_feature(outputs={"label": "string"}, mode="row")
def label(channel, name):
    """Return text made of a request value and of a stored one."""
    return None if name is None else f"{channel or '?'}: {name}"


@request_feature(outputs={"waited": "float64"}, mode="row")
def waited(cart_value):
    """Return a cart's value: of a large one after a while, of a negative one once there is a file `go` in the working folder."""
    if cart_value > 100:
        time.sleep(0.02)
    while cart_value < 0 and not Path("go").exists():
        Path("waits").touch()
        time.sleep(0.01)
    return cart_value


calls = []
"""The lengths of the arrays with which `counted` was called."""


@request_feature(outputs={"counted": "float64"}, mode="array")
def counted(cart_value):
    """Return its input, and note that it was called."""
    calls.append(len(cart_value))
    return cart_value * 2


@request_feature(outputs={"half": "float64"}, mode="row")
def half(size):
    """Return half of a size. It fails for null, which is not stored when a view is registered."""
    return size / 2
