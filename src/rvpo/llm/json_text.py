"""Model text as JSON that can be sent, stored and read again, whatever it holds."""

import json

__all__ = ["json_text"]

STRICT, LENIENT = (json.JSONEncoder(ensure_ascii=False, allow_nan=allowed) for allowed in (False, True))


def json_text(value: object, *, allow_nan: bool = False) -> str:
    r"""Return a value as JSON on one line, in which every character that UTF-8 can carry stands for itself.

    Half of a surrogate pair, which a model can produce and UTF-8 cannot carry, becomes JSON's own escape: reading the
    JSON gives the same text back. Raises ValueError for NaN and infinities, which JSON does not have, unless they are
    allowed.

    >>> json_text({"text": "caf\u00e9 \ud83d"})
    '{"text": "café \\ud83d"}'
    """
    text = (LENIENT if allow_nan else STRICT).encode(value)
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()
