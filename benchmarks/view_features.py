"""Request features of the issue's trial (ratio, log times count, flag), as modules import them."""

import numpy as np

from seeknal import request_feature


@request_feature(outputs={"ratio": "float64"}, mode="array")
def ratio(cart: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Compare two amounts."""
    return cart / usual


@request_feature(outputs={"log_count": "float64"}, mode="array")
def log_count(cart: np.ndarray, trips: np.ndarray) -> np.ndarray:
    """Weigh a count by an amount."""
    return np.log1p(cart) * trips


@request_feature(outputs={"is_large": "bool"}, mode="array")
def is_large(cart: np.ndarray, usual: np.ndarray) -> np.ndarray:
    """Say whether an amount is large."""
    return cart > usual


FUNCTIONS = [ratio, log_count, is_large]
