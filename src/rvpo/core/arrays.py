"""The little that the array API standard leaves open: which namespace, and how wide the floats are."""

from typing import Any

import numpy as np
from array_api_compat import array_namespace, device, is_array_api_obj

from rvpo.errors import RewardError

Array = Any
"""An array of any library that follows the array API standard: NumPy, torch, JAX, CuPy, ..."""

__all__ = ["Array", "as_array", "compute_dtype", "device", "namespace"]


def namespace(array: Array) -> Any:
    """Return the array-API namespace of an array."""
    return array_namespace(array)


def as_array(values: Any) -> Array:
    """Return arrays as they are and nested Python lists as a float64 NumPy array, where None becomes NaN."""
    if is_array_api_obj(values):
        return values
    try:
        return np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RewardError(f"rewards must be an array or nested lists of numbers and None: {error}") from error


def compute_dtype(array: Array) -> Any:
    """Return float64 where the array's device has it (all but Apple's MPS), else float32."""
    xp = namespace(array)
    if getattr(device(array), "type", None) == "mps":  # torch's info claims float64 for every device
        return xp.float32
    return xp.__array_namespace_info__().dtypes(kind="real floating").get("float64", xp.float32)
