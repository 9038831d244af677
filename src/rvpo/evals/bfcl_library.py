"""What is used of `bfcl-eval`: its 4,441 cases, its checker of single calls, its simulated APIs.

Version 2025.7.9 is the last whose cases are BFCL v3; later ones change about a third of the multi-turn cases under the
same names. Its modules import the SDKs of some ten vendors through one table of models, of which the checker only
reads whether dots in function names were replaced. That table is stood in for while the checker is imported, so that
the package can be installed without its dependencies (`INSTALL`).

Nothing here runs a model's text: the library's own decoder and executor, which call `eval` on it, are not used.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module, resources
from importlib.metadata import PackageNotFoundError, version
from types import ModuleType, SimpleNamespace
from typing import Any

from rvpo.errors import ConfigError

__all__ = [
    "DOCUMENTS",
    "INSTALL",
    "VERSION",
    "Calls",
    "Case",
    "check_calls",
    "documented",
    "language_of",
    "load_cases",
    "module",
    "require",
    "tools",
]

VERSION = "2025.7.9"
INSTALL = f"pip install 'rvpo[bfcl]' && pip install --no-deps bfcl-eval=={VERSION}"

Case = Mapping[str, Any]
"""A case: `id`, `question` (a list of messages a turn), `function` (descriptions of functions), `truth`, and with
several turns also `initial_config`, `involved_classes` and `missed_function` (turn -> descriptions)."""
Calls = list[dict[str, dict[str, Any]]]
"""Calls in the checker's form: [{name: {parameter: value}}, ...]."""

TABLE = "bfcl_eval.constants.model_config"
CHECKER = "bfcl_eval.eval_checker.ast_eval.ast_checker"
STAND_IN = {
    "dots": SimpleNamespace(underscore_to_dot=False),
    "underscores": SimpleNamespace(underscore_to_dot=True),
}
DOCUMENTS = {
    "GorillaFileSystem": "gorilla_file_system", "MathAPI": "math_api", "MessageAPI": "message_api",
    "TwitterAPI": "posting_api", "TicketAPI": "ticket_api", "TradingBot": "trading_bot", "TravelAPI": "travel_booking",
    "VehicleControlAPI": "vehicle_control",
}  # fmt: skip
"""Simulated API -> the name of its module and of the file with its functions' descriptions."""


@cache
def require() -> None:
    """Raise ConfigError, with the command that helps, unless the right version can be used."""
    try:
        installed = version("bfcl-eval")
    except PackageNotFoundError:
        raise ConfigError(f"BFCL needs bfcl-eval {VERSION}, which is not installed: {INSTALL}") from None
    if installed != VERSION:
        raise ConfigError(f"BFCL v3 is bfcl-eval {VERSION}; {installed} is installed, with other cases: {INSTALL}")
    for name in (CHECKER, "bfcl_eval.model_handler.utils"):
        module(name)


@cache
def module(name: str) -> ModuleType:
    """Return a module of bfcl-eval. Raises ConfigError if something that it needs is absent."""
    stand_in = ModuleType(TABLE)
    stand_in.MODEL_CONFIG_MAPPING = STAND_IN  # type: ignore[attr-defined]
    before = {key: sys.modules.pop(key) for key in (TABLE, CHECKER) if key in sys.modules}
    sys.modules[TABLE] = stand_in
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(f"bfcl-eval cannot be used ({error}): {INSTALL}") from error
    finally:
        # Whoever uses the whole of bfcl-eval in this process gets the real table and a checker that reads it.
        for key in (TABLE, CHECKER):
            sys.modules.pop(key, None)
        sys.modules.update(before)


def _read(*path: str) -> list[dict[str, Any]]:
    text = resources.files("bfcl_eval").joinpath("data", *path).read_text(encoding="utf-8")
    # Not splitlines: JSON strings may hold the other separators that it splits at.
    return [json.loads(line) for line in text.split("\n") if line]


def load_cases(category: str) -> list[dict[str, Any]]:
    """Return the cases of a category with their accepted answers as `truth` (None where no call is compared)."""
    require()
    cases = _read(f"BFCL_v3_{category}.json")
    if "relevance" in category:
        return [case | {"truth": None} for case in cases]
    truths = {row["id"]: row["ground_truth"] for row in _read("possible_answer", f"BFCL_v3_{category}.json")}
    cases = [case | {"truth": truths[case["id"]]} for case in cases]
    return [_with_functions(case) for case in cases] if category.startswith("multi_turn") else cases


@cache
def _document(name: str) -> list[dict[str, Any]]:
    """Return the descriptions of a simulated API's functions, shared by all cases; nobody changes them."""
    return _read("multi_turn_func_doc", f"{DOCUMENTS[name]}.json")


def _with_functions(case: dict[str, Any]) -> dict[str, Any]:
    """Return a case of several turns with its functions; those that come later are in `missed_function`, by turn."""
    functions = [function for name in case["involved_classes"] for function in _document(name)]
    held_back = case.get("missed_function", {})
    late = {name for names in held_back.values() for name in names}
    by_turn = {
        turn: [function for function in functions if function["name"] in names] for turn, names in held_back.items()
    }
    first = [function for function in functions if function["name"] not in late]
    return case | {"function": first, "missed_function": by_turn}


def documented(functions: Sequence[Mapping[str, Any]], category: str) -> list[dict[str, Any]]:
    """Return descriptions with the hints on the language that BFCL adds; Java's and JavaScript's values are texts."""
    utils: Any = module("bfcl_eval.model_handler.utils")
    copied = json.loads(json.dumps(list(functions)))  # it changes what it is given; faster than deepcopy
    return list(utils.func_doc_language_specific_pre_processing(copied, category))


def tools(functions: Sequence[Mapping[str, Any]], category: str) -> list[dict[str, Any]]:
    """Return descriptions as the `tools` of a chat request; dots in names, which it must not have, as underscores."""
    utils: Any = module("bfcl_eval.model_handler.utils")
    openapi = module("bfcl_eval.constants.type_mappings").GORILLA_TO_OPENAPI
    style = module("bfcl_eval.model_handler.model_style").ModelStyle.OpenAI_Completions
    return list(utils.convert_to_tool(documented(functions, category), openapi, style))


def language_of(category: str) -> str:
    """Return the language of a category's functions, as the checker names it."""
    return {"java": "Java", "javascript": "JavaScript"}.get(category, "Python")


def check_calls(case: Case, category: str, calls: Calls, *, underscores: bool = False) -> str | None:
    """Return why calls are not among the accepted answers of a case, None if they are.

    Args:
        case: with `function` and `truth`.
        category: decides on the language, and on whether one call or several are expected.
        calls: as decoded.
        underscores: dots in the names of functions were replaced, as in `tools`.
    """
    checker: Any = module(CHECKER)
    names = "underscores" if underscores else "dots"
    try:
        verdict = checker.ast_checker(case["function"], calls, case["truth"], language_of(category), category, names)
    except Exception as error:
        # It takes types for granted and raises whatever comes of others (a text in a list of dictionaries, say).
        return f"checker:{type(error).__name__}"
    return None if verdict["valid"] else str(verdict["error_type"])
