"""Request features that the tests of feature views use."""

import numpy as np

from seeknal import request_feature

LEAST = 0.5


@request_feature(outputs={"basket_vs_usual": "float64"})
def basket_vs_usual(cart_value, spend_30d, trips_30d):
    """Compare a basket with the usual one."""
    usual = spend_30d / trips_30d if trips_30d else None
    return None if not usual else cart_value / usual


@request_feature(outputs={"is_large": "bool", "log_cart": "float64"}, mode="array")
def large(cart_value, price):
    """Say whether a basket is large."""
    return np.where(np.isnan(price), np.nan, cart_value > LEAST * price), np.log1p(cart_value)


@request_feature(outputs={"both": "float64"}, mode="array")
def both(basket_vs_usual, log_cart):
    """Combine what two other functions compute."""
    return basket_vs_usual + log_cart
