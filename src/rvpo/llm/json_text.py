"""Model text as JSON that can be sent, stored and read again, whatever it holds."""

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["json_text", "whole"]

STRICT, LENIENT = (json.JSONEncoder(ensure_ascii=False, allow_nan=allowed) for allowed in (False, True))


def whole(value: Any) -> Any:
    r"""Return a value with every text in it such that any file, database and server takes it.

    Half of a surrogate pair, which a model can produce and UTF-8 cannot carry, and NUL become the replacement
    character; two halves that belong together become their character. Lists and mappings are copied.

    >>> whole({"text": ["ok \ud83d", "\ud83d\ude00", 1]}) == {"text": ["ok \ufffd", "\U0001f600", 1]}
    True
    """
    if isinstance(value, str):
        if not value.isascii():
            value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        return value.replace("\0", "\N{REPLACEMENT CHARACTER}")
    if isinstance(value, Mapping):
        return {whole(key): whole(part) for key, part in value.items()}
    return [whole(part) for part in value] if isinstance(value, list | tuple) else value


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
