"""Serving: online tables answer for keys, and prove that they answer what training reads."""
