"""Loading: rows go from offline to online, and tables move on to them."""
