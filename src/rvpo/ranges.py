"""When a reward lies outside its declared range: defined once, for rewards, core, trainers and audit."""

from typing import Any

__all__ = ["outside"]

TOLERANCE = 1e-6
"""Of a range's width: the rounding of a float32."""


def outside(values: Any, low: Any, high: Any) -> Any:
    """Tell which values lie outside [low, high] by more than a millionth of its width; NaN does not.

    >>> import numpy as np
    >>> outside(np.array([-0.1, 0.0, 1.0 + 1e-7, 1.1, np.nan]), 0.0, 1.0).tolist()
    [True, False, False, True, False]
    """
    slack = TOLERANCE * (high - low)
    return (values < low - slack) | (values > high + slack)
