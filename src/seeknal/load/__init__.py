"""Loading: rows go from the offline to the online store, and online tables move to them."""
