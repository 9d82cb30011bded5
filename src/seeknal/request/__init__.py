"""What is computed of looked-up features and values of a request: the same functions for one row and for a million."""
