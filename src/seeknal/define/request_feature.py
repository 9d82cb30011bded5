"""TEMP"""

from __future__ import annotations

import inspect
from dataclasses import dataclass


@dataclass(frozen=True, eq=False)
class RequestFeature:
    function: object
    outputs: dict
    mode: str

    def __call__(self, *a):
        return self.function(*a)

    @property
    def name(self):
        return self.function.__name__

    @property
    def inputs(self):
        return tuple(inspect.signature(self.function).parameters)

    def to_json(self):
        return {
            "function": f"{self.function.__module__}:{self.name}",
            "mode": self.mode,
            "inputs": list(self.inputs),
            "outputs": {k: str(v) for k, v in self.outputs.items()},
            "code": "x",
        }


def request_feature(outputs, mode="row"):
    from seeknal.values import types

    return lambda f: RequestFeature(f, types.parse_each("outputs", outputs), mode)


def load(t):
    import importlib

    m, n = t["function"].split(":")
    return getattr(importlib.import_module(m), n)
