"""BFCL v3, the Berkeley Function Calling Leaderboard: the cases and the checker of `bfcl-eval`, aggregates by name.

    category:NAME          share of a category's cases that are right; there are 17
    non_live               mean of simple_ast, multiple, parallel, parallel_multiple and irrelevance
    live                   share of all live cases that are right: every case counts once
    multi_turn             mean of its four categories
    overall                mean of non_live, live and multi_turn: the leaderboard's column
    single_turn            mean of non_live and live
    simple_ast             mean of simple (Python), java and javascript
    non_live_ast           mean of simple_ast, multiple, parallel and parallel_multiple
    live_ast               share of live_simple, live_multiple, live_parallel and live_parallel_multiple that is right
    irrelevance_detection  mean of irrelevance and live_irrelevance
    accuracy               share of all cases asked that are right; no aggregate of the leaderboard's

An aggregate has a value only if every case of its categories was asked; the leaderboard counts a category that was not
as 0. A number without the name of its aggregate says nothing: those of one model can lie 40 points apart.

Lost answers are missing, not wrong; the lower end of `bounds` is what the leaderboard, which counts them as wrong,
would show. Source of the rules: Patil et al., the Berkeley Function Calling Leaderboard (ICML 2025), and its package.
"""

import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import NormalDist, variance
from typing import Any

from rvpo.errors import ConfigError, unknown_name
from rvpo.evals.benchmark import Ask, Benchmark, Record, mean_score, repeated, scored, unknown_record
from rvpo.evals.bfcl_forms import FORMS, turns_of
from rvpo.evals.bfcl_library import VERSION, check_calls, load_cases, require
from rvpo.evals.bfcl_turns import AskedCase, check_transcript, conversed, read_calls, read_transcript
from rvpo.evals.models import Answer, Question
from rvpo.llm.model_text import without_thoughts

__all__ = ["CATEGORIES", "GROUPS", "WEIGHTS", "build", "record", "summarize"]

CATEGORIES: Mapping[str, int] = {
    "simple": 400, "java": 100, "javascript": 50, "multiple": 200, "parallel": 200, "parallel_multiple": 200,
    "irrelevance": 240,
    "live_simple": 258, "live_multiple": 1053, "live_parallel": 16, "live_parallel_multiple": 24,
    "live_irrelevance": 882, "live_relevance": 18,
    "multi_turn_base": 200, "multi_turn_miss_func": 200, "multi_turn_miss_param": 200, "multi_turn_long_context": 200,
}  # fmt: skip
"""Categories and their numbers of cases."""
LIVE = tuple(name for name in CATEGORIES if name.startswith("live"))
MULTI_TURN = tuple(name for name in CATEGORIES if name.startswith("multi_turn"))
NON_LIVE = tuple(name for name in CATEGORIES if name not in LIVE + MULTI_TURN)
GROUPS: Mapping[str, tuple[str, ...]] = {
    "all": tuple(CATEGORIES),
    "single_turn": NON_LIVE + LIVE,
    "non_live": NON_LIVE,
    "live": LIVE,
    "multi_turn": MULTI_TURN,
}
"""Names that stand for several categories."""
CATEGORY = "category:"

Weights = Mapping[str, float]


def _mean_of(*parts: Weights | str) -> Weights:
    """Return the weights of categories in the unweighted mean of aggregates and categories."""
    weights: dict[str, float] = defaultdict(float)
    for part in parts:
        for name, weight in ({part: 1.0} if isinstance(part, str) else part).items():
            weights[name] += weight / len(parts)
    return weights


def _by_cases(*names: str) -> Weights:
    """Return weights by which every case counts once."""
    total = sum(CATEGORIES[name] for name in names)
    return {name: CATEGORIES[name] / total for name in names}


_SIMPLE = _mean_of("simple", "java", "javascript")
_OTHERS = ("multiple", "parallel", "parallel_multiple")
_NON_LIVE = _mean_of(_SIMPLE, *_OTHERS, "irrelevance")
_LIVE = _by_cases(*LIVE)
_MULTI_TURN = _mean_of(*MULTI_TURN)
WEIGHTS: Mapping[str, Weights] = {
    "overall": _mean_of(_NON_LIVE, _LIVE, _MULTI_TURN),
    "single_turn": _mean_of(_NON_LIVE, _LIVE),
    "non_live": _NON_LIVE,
    "live": _LIVE,
    "multi_turn": _MULTI_TURN,
    "simple_ast": _SIMPLE,
    "non_live_ast": _mean_of(_SIMPLE, *_OTHERS),
    "live_ast": _by_cases(*(name for name in LIVE if "relevance" not in name)),
    "irrelevance_detection": _mean_of("irrelevance", "live_irrelevance"),
}
"""Aggregate -> the weight of each of its categories' shares."""


def build(
    *,
    answer_format: str = "prompt",
    categories: Sequence[str] = ("all",),
    number: int | None = None,
    repeats: int = 1,
    seed: int = 0,
) -> Benchmark:
    """Return the benchmark of BFCL's cases.

    Args:
        answer_format: "prompt", BFCL's own system prompt and its `[name(parameter=value)]`; "native", tool calling
            as the model's chat template or its server has it; "rlla" for models trained on RLLA.
        categories: names in `CATEGORIES` or `GROUPS`.
        number: how many cases of each category, drawn by the seed; None: all. With fewer, no aggregate has a value.
        repeats: answers to each case.
        seed: of the answers.

    Raises:
        ConfigError: an unknown name, a number or repeats below 1, or bfcl-eval is not there.
    """
    if answer_format not in FORMS:
        raise unknown_name("answer format", answer_format, FORMS)
    if repeats < 1 or (number is not None and number < 1):
        raise ConfigError(f"number and repeats must be at least 1, got {number!r} and {repeats!r}")
    names = _named(categories)
    require()
    form = FORMS[answer_format]
    settings = {
        case["id"]: AskedCase(case, name, form)
        for name in names
        for case in _drawn(load_cases(name), name, number, seed)
    }

    async def converse(question: Question, ask: Ask) -> Answer:
        setting = settings[question.unit]
        return await (conversed(question, setting, ask) if setting.category in MULTI_TURN else ask(question))

    return Benchmark(
        name="bfcl",
        questions=[
            question for unit, setting in settings.items() for question in _questions(unit, setting, repeats, seed)
        ],
        score=lambda question, answer: record(question, settings[question.unit], answer),
        summarize=summarize,
        item_score="accuracy",
        about={
            "bfcl_eval": VERSION,
            "answer_format": answer_format,
            "categories": names,
            "number": number,
            "repeats": repeats,
            "seed": seed,
        },
        converse=converse,
    )


def _named(categories: Sequence[str]) -> list[str]:
    """Return categories in their order, from names of categories and groups."""
    wanted: set[str] = set()
    for name in categories:
        if name not in CATEGORIES and name not in GROUPS:
            raise unknown_name("BFCL category", name, [*GROUPS, *CATEGORIES])
        # "irrelevance" and the like are categories; a group has no category's name.
        wanted.update(GROUPS.get(name, (name,)))
    if not wanted:
        raise ConfigError("BFCL needs at least one category")
    return [name for name in CATEGORIES if name in wanted]


def _drawn(cases: list[dict[str, Any]], category: str, number: int | None, seed: int) -> list[dict[str, Any]]:
    if number is None or number >= len(cases):
        return cases
    places = random.Random(f"bfcl {seed} {category}").sample(range(len(cases)), number)
    return [cases[place] for place in sorted(places)]


def _questions(unit: str, setting: AskedCase, repeats: int, seed: int) -> list[Question]:
    request = setting.form.ask(setting.case, setting.category, turns_of(setting.case)[:1])
    return [replace(question, tools=request.tools) for question in repeated({unit: request.prompt}, repeats, seed)]


def record(question: Question, setting: AskedCase, answer: Answer) -> Record:
    """Return the record of an answer: 1 or 0, its category, and `why` it is wrong (None if it is right)."""
    names = ("accuracy", CATEGORY + setting.category)
    category = setting.category
    if answer.text is None:
        return unknown_record(question, dict.fromkeys(names, (0.0, 1.0)), category=category, why=None)
    why = _why_wrong(setting, answer.text)
    is_attempt = bool(setting.form.attempt.search(without_thoughts(answer.text)))
    malformed = why is None and "irrelevance" in category and is_attempt
    scores = dict.fromkeys(names, float(why is None))
    return scored(question, scores, category=category, why=why, malformed=malformed)


def _why_wrong(setting: AskedCase, text: str) -> str | None:
    """Return why an answer is wrong, None if it is right. Where no call is wanted, whatever is no call is right."""
    case, category, form = setting
    if category in MULTI_TURN:
        return check_transcript(case, category, read_transcript(setting, text))
    try:
        calls = read_calls(setting, text)
    except ValueError:
        return None if "irrelevance" in category else "decoder:no_calls"
    if "irrelevance" in category:
        return "irrelevance:calls"
    if "relevance" in category:
        return None
    return check_calls(case, category, calls, underscores=form.has_tools)


def summarize(records: Sequence[Record]) -> dict[str, Any]:
    """Return the benchmark's part of a summary; see `rvpo.evals.benchmark.Benchmark`.

    `not_run` has the categories of which not all cases were asked, with how many were and how many there are;
    `wrong_because` counts the reasons of wrong answers, `malformed` the right ones of irrelevance that are no refusal
    but a call that cannot be read. The headline is the largest aggregate that is whole.
    """
    units: dict[str, set[str]] = {}
    for record in records:
        units.setdefault(record["category"], set()).add(record["unit"])
    short = [name for name, number in CATEGORIES.items() if len(units.get(name, ())) < number]
    categories = {name: mean_score(records, CATEGORY + name) for name in CATEGORIES}
    spreads = {name: _spread(records, name) for name in units}
    scores = {name: _aggregate(weights, categories, spreads, short) for name, weights in WEIGHTS.items()}
    scores["accuracy"] = mean_score(records, "accuracy")
    scores |= {CATEGORY + name: summary for name, summary in categories.items()}
    whole = (name for name in ("overall", "single_turn", "non_live", "live", "multi_turn") if _is_whole(name, short))
    return {
        "headline": next(whole, "accuracy"),
        "shown": list(scores),
        "scores": scores,
        "not_run": {name: [len(units.get(name, ())), CATEGORIES[name]] for name in short},
        "wrong_because": dict(Counter(record["why"] for record in records if record["why"] is not None).most_common()),
        "malformed": sum(bool(record.get("malformed")) for record in records),
    }


def _is_whole(aggregate: str, short: Sequence[str]) -> bool:
    return not set(WEIGHTS[aggregate]) & set(short)


def _spread(records: Sequence[Record], category: str) -> float:
    """Return the squared standard error of a category's mean over cases; NaN from fewer than two."""
    by_unit: dict[str, list[float]] = {}
    for record in records:
        value = record["scores"].get(CATEGORY + category)
        if value is not None:
            by_unit.setdefault(record["unit"], []).append(value)
    means = [sum(values) / len(values) for values in by_unit.values()]
    return variance(means) / len(means) if len(means) > 1 else math.nan


def _aggregate(
    weights: Weights, categories: Mapping[str, Mapping[str, Any]], spreads: Mapping[str, float], short: Sequence[str]
) -> dict[str, Any]:
    """Return `sum_c w_c m_c` as `mean_score` does, without a value unless every category is whole.

    The interval is the normal one, from the standard error `sqrt(sum_c w_c^2 se_c^2)`, cut to [0, 1].
    """
    parts = [(categories[name], weight) for name, weight in weights.items()]
    counts = {key: sum(part[key] for part, _ in parts) for key in ("items", "missing")}
    bounded = all(part["bounds"] is not None for part, _ in parts)
    if set(weights) & set(short) or not bounded:
        return {"value": None, "interval": None, **counts, "bounds": None}
    bounds = [sum(weight * part["bounds"][end] for part, weight in parts) for end in (0, 1)]
    if any(part["value"] is None for part, _ in parts):
        return {"value": None, "interval": None, **counts, "bounds": bounds}
    value = sum(weight * part["value"] for part, weight in parts)
    error = math.sqrt(sum(weight**2 * spreads[name] for name, weight in weights.items()))
    ends = [value + sign * NormalDist().inv_cdf(0.975) * error for sign in (-1, 1)]
    interval = None if math.isnan(error) else [min(max(end, 0.0), 1.0) for end in ends]
    return {"value": value, "interval": interval, **counts, "bounds": bounds}
