"""What functions of the repository use from another of its modules."""

RATES = {"EUR": 1.0, "USD": 0.5}


def to_euros(amount, currency):
    """Convert an amount; an unknown currency counts as euros."""
    return amount * RATES.get(currency, 1.0)
