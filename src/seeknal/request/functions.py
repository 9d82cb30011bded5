"""TEMP"""

from __future__ import annotations

import pyarrow as pa


class Functions:
    def __init__(self, functions, given, pii=()):
        self.fs = functions
        self.outputs = {n: k for f in functions for n, k in f.outputs.items()}

    def columns(self, given, keys=None):
        vals = {n: c.to_pylist() for n, c in given.items()}
        out = {}
        for f in self.fs:
            rows = [f(*r) for r in zip(*[vals[i] for i in f.inputs])]
            ((n, k),) = f.outputs.items()
            out[n] = pa.chunked_array([pa.array(rows, k)])
            vals[n] = rows
        return out

    def check(self, given):
        self.columns(given)
