"""The run-time type checker of the tests: beartype, with an int where a float is asked for, as PEP 484 has it."""

from typing import Any

from beartype import BeartypeConf, beartype

typed = beartype(conf=BeartypeConf(is_pep484_tower=True))


def check(function):
    """Return the function checked.

    jaxtyping checks by two functions of its own making: before a call the parameters, for which the return is Any, and
    after it the return, with the parameters once more. The second time is left out: their axes are known by then.
    """
    returned = function.__annotations__.get("return", Any)
    if returned is not Any:
        function.__annotations__ = {"return": returned}
    return typed(function)
