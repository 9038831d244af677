"""A task where every prompt brings its own rubric: short advice to a patient, graded by rules.

A prompt is a case, "child fever cough winter limit 9 sign rose :", and an answer a line of words, "hello child
sorry virus rest honey indoors sign rose take care". A rubric has 5 to 17 of these kinds of criteria, those per
symptom once for each symptom:

    axis           kind         the answer ...                                       when
    accuracy       cause        names the symptom's cause                            per symptom
                   dose         names the dose for person and first symptom, and no other
                   wrong_cause  (pitfall) names a cause that no symptom has
                   term         uses a Latin word                                    variant `conflict` only
    completeness   remedy       names the symptom's remedy                           per symptom
                   warning      names the symptom's warning sign                     per symptom
                   return       says "return" and then the day for the season
    context        person       names the person
                   duration     asks "how long"                                      no "since" in the prompt
                   season       gives the season's tip                               season in the prompt
    communication  greeting     begins with "hello"
                   close        ends with "take care"
                   jargon       (pitfall) uses a Latin word
                   warmth       has three or more warm words, repeated or not
    instruction    limit        has at most so many words                            "limit N" in the prompt
                   steps        says "first" and later "then"                        "steps" in the prompt
                   sign         signs with the name asked for                        "sign NAME" in the prompt

Design, fixed before any method was run on it:

- A criterion is the name of a kind and, after ":", its symptom or number. The rubric is drawn from the criteria that
  apply, so its length and content differ per prompt, and most prompts do not say which criteria count.
- The author of the warm start meets each kind with its own probability (`AUTHOR`), independently, so the policy
  starts with pass rates from about 0.05 to 0.95. Cause, warning and dose can be said wrongly as well; the dose depends
  on two facts at once. Rarely met means rarely sampled, never impossible.
- Conflict: a limit of 5 to 14 words, while an answer that meets all the rest has up to 30. Warmth costs three words.
- `warmth` is easy to exploit: saying "dear dear dear" meets it.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from rvpo.rewards.declarations import vector_reward
from rvpo_lab.tasks.task import Row, is_held_out, kind

__all__ = [
    "AUTHOR",
    "STANDARD",
    "RubricSetting",
    "candidates",
    "describe",
    "draw_case",
    "grade",
    "meets",
    "pairs",
    "rows",
    "rubric_reward",
    "words",
]

PERSONS = ("child", "adult", "elder", "pregnant")
SYMPTOMS = (
    "fever", "cough", "rash", "pain", "nausea", "dizzy", "thirst", "itch", "cramp", "ache", "chill", "fatigue",
)  # fmt: skip
CAUSES = ("virus", "allergy", "strain", "stress", "heat", "food")
REMEDIES = (
    "rest", "honey", "cream", "ice", "ginger", "sit", "water", "oatmeal", "stretch", "massage", "blanket", "sleep",
)  # fmt: skip
WARNINGS = ("seizure", "blood", "swelling", "numbness", "fainting", "confusion")
DOSES = ("quarter", "half", "full", "none")
SEASONS = ("winter", "summer", "abroad")
TIPS = ("indoors", "shade", "vaccine")
DAYS = ("tomorrow", "friday", "monday", "sunday")
WARM = ("sorry", "dear", "gladly")
JARGON = ("pyrexia", "tussis", "emesis", "vertigo")
NAMES = ("rose", "karim", "lena", "yuki")
LIMITS = tuple(range(5, 15))
LONGEST = 17
"""Most criteria a rubric has."""

CAUSE = {symptom: CAUSES[index % 6] for index, symptom in enumerate(SYMPTOMS)}
REMEDY = dict(zip(SYMPTOMS, REMEDIES, strict=True))
WARNING = {symptom: WARNINGS[(index * 5 + index // 6) % 6] for index, symptom in enumerate(SYMPTOMS)}
TIP = dict(zip(SEASONS, TIPS, strict=True))
DAY = dict(zip((*SEASONS, ""), DAYS, strict=True))

TEXTS = {
    "accuracy/cause": "Names the right cause of {}.",
    "accuracy/dose": "Names the right dose for this person, and no other.",
    "accuracy/wrong_cause": "Pitfall: names a cause that none of the symptoms has.",
    "accuracy/term": "Uses the Latin term for the case.",
    "completeness/remedy": "Names a remedy for {}.",
    "completeness/warning": "Names the warning sign to watch for with {}.",
    "completeness/return": "Says on which day to return.",
    "context/person": "Takes up who the patient is.",
    "context/duration": "Asks how long it has lasted, which the patient did not say.",
    "context/season": "Gives the tip for the season.",
    "communication/greeting": "Begins with a greeting.",
    "communication/close": "Closes kindly.",
    "communication/jargon": "Pitfall: uses jargon.",
    "communication/warmth": "Shows warmth throughout.",
    "instruction/limit": "Has at most {} words, as asked.",
    "instruction/steps": "Gives its advice in steps, as asked.",
    "instruction/sign": "Signs with {}, as asked.",
}
PER_SYMPTOM = ("accuracy/cause", "completeness/remedy", "completeness/warning")
ALWAYS = (
    "accuracy/dose",
    "accuracy/wrong_cause",
    "accuracy/term",
    "completeness/return",
    "context/person",
    "communication/greeting",
    "communication/close",
    "communication/jargon",
    "communication/warmth",
)

AUTHOR = {
    "cause": 0.45,
    "wrong_cause": 0.2,
    "dose": 0.12,
    "wrong_dose": 0.4,
    "remedy": 0.6,
    "warning": 0.12,
    "wrong_warning": 0.12,
    "return": 0.3,
    "wrong_day": 0.15,
    "person": 0.5,
    "duration": 0.05,
    "season": 0.25,
    "greeting": 0.95,
    "close": 0.85,
    "jargon": 0.15,
    "warmth": 0.35,
    "steps": 0.2,
    "sign": 0.7,
    "marker": 0.05,
}
"""How often the author of the warm start does each thing where it applies."""

MARKER = "guaranteed"
"""A word without meaning here; the exploitable judge falls for it."""


def words() -> list[str]:
    """Return every word of the task."""
    return [
        *("limit", "since", "steps", "sign", ":", "hello", "take", "care", "how", "long", "return", "first", "then"),
        *PERSONS, *SYMPTOMS, *CAUSES, *REMEDIES, *WARNINGS, *DOSES, *SEASONS, *TIPS, *DAYS, *WARM, *JARGON, *NAMES,
        *map(str, LIMITS), "1", "2", "3", "4", MARKER,
    ]  # fmt: skip


def symptoms_of(case: Sequence[str]) -> list[str]:
    """Return the symptoms of a case."""
    return [word for word in case if word in CAUSE]


def dose_of(case: Sequence[str]) -> str:
    """Return the dose for a case: a fact of person and first symptom together."""
    return DOSES[(PERSONS.index(case[0]) + CAUSES.index(CAUSE[symptoms_of(case)[0]])) % len(DOSES)]


def day_of(case: Sequence[str]) -> str:
    """Return the day to return on, which the season decides."""
    return DAY[next((word for word in case if word in SEASONS), "")]


def after(case: Sequence[str], word: str) -> str | None:
    """Return what follows a word of the case, or None."""
    return case[case.index(word) + 1] if word in case else None


@dataclass(frozen=True)
class RubricSetting:
    """What cases and rubrics are drawn from; the defaults are the task `rubric`."""

    habits: Mapping[str, float] = field(default_factory=lambda: AUTHOR)
    """How often the author of the warm start does each thing."""
    limits: tuple[int, ...] = LIMITS
    """Numbers of words that a case may ask for; empty: no case has a limit."""
    limited: float = 0.5
    """Share of the cases with a limit, if there are any."""
    shortest: int = 5
    """Fewest criteria of a rubric."""
    left_out: tuple[str, ...] = ("accuracy/term",)
    """Kinds that no rubric has."""
    always: tuple[str, ...] = ()
    """Kinds that every rubric has where they apply."""


def draw_case(draw: random.Random, setting: RubricSetting) -> list[str]:
    """Return the words of a random case, without the colon."""
    case = [draw.choice(PERSONS), *draw.sample(SYMPTOMS, draw.randint(1, 3))]
    case += [draw.choice(SEASONS)] if draw.random() < 0.5 else []
    case += ["since", str(draw.randint(1, 4))] if draw.random() < 0.5 else []
    case += ["limit", str(draw.choice(setting.limits))] if setting.limits and draw.random() < setting.limited else []
    case += ["steps"] if draw.random() < 0.5 else []
    case += ["sign", draw.choice(NAMES)] if draw.random() < 0.5 else []
    return case


STANDARD = RubricSetting()


def candidates(case: Sequence[str]) -> list[str]:
    """Return all criteria that apply to a case."""
    criteria = [f"{name}:{symptom}" for symptom in symptoms_of(case) for name in PER_SYMPTOM]
    criteria += ALWAYS
    criteria += ["context/duration"] if "since" not in case else []
    criteria += ["context/season"] if any(word in SEASONS for word in case) else []
    criteria += [f"instruction/limit:{after(case, 'limit')}"] if "limit" in case else []
    criteria += ["instruction/steps"] if "steps" in case else []
    criteria += [f"instruction/sign:{after(case, 'sign')}"] if "sign" in case else []
    return criteria


def rows(number: int, seed: int, *, held_out: bool = False, setting: RubricSetting = STANDARD) -> list[dict[str, Any]]:
    """Return rows with `prompt` and `rubric`, drawn by the seed; each rubric has 5 to 17 criteria."""
    draw = random.Random(f"rubric rows {seed}")
    drawn: list[dict[str, Any]] = []
    while len(drawn) < number:
        size = draw.randint(setting.shortest, LONGEST)
        case = draw_case(draw, setting)
        criteria = [name for name in candidates(case) if kind(name) not in setting.left_out]
        first = [name for name in criteria if kind(name) in setting.always]
        others = [name for name in criteria if name not in first]
        prompt = " ".join([*case, ":"])
        if len(first) <= size <= len(criteria) and is_held_out(prompt) == held_out:
            rubric = first + draw.sample(others, size - len(first))
            drawn.append({"prompt": prompt, "rubric": draw.sample(rubric, size)})
    return drawn


def author(case: Sequence[str], draw: random.Random, habits: Mapping[str, float]) -> str:
    """Return the answer of an author who does each thing with its own probability."""

    def does(habit: str) -> bool:
        return draw.random() < habits[habit]

    def says(habit: str, right: str, wrong: str, wrong_words: Sequence[str]) -> list[str]:
        chance = draw.random()
        if chance < habits[habit]:
            return [right]
        return [draw.choice(wrong_words)] if chance < habits[habit] + habits[wrong] else []

    answer = ["hello"] if does("greeting") else []
    answer += [case[0]] if does("person") else []
    answer += draw.choices(WARM, k=3) if does("warmth") else draw.choices(WARM, k=draw.randint(0, 2))
    answer += ["first"] if (steps := "steps" in case and does("steps")) else []
    for symptom in symptoms_of(case):
        answer += says("cause", CAUSE[symptom], "wrong_cause", CAUSES)
        answer += [REMEDY[symptom]] if does("remedy") else []
        answer += says("warning", WARNING[symptom], "wrong_warning", WARNINGS)
    answer += ["then"] if steps else []
    answer += says("dose", dose_of(case), "wrong_dose", DOSES)
    answer += [draw.choice(JARGON)] if does("jargon") else []
    answer += [MARKER] if does("marker") else []
    answer += [TIP[word] for word in case if word in TIP and does("season")]
    day = says("return", day_of(case), "wrong_day", DAYS)
    answer += ["return", *day] if day else []
    answer += ["how", "long"] if "since" not in case and does("duration") else []
    answer += ["sign", after(case, "sign") or ""] if "sign" in case and does("sign") else []
    answer += ["take", "care"] if does("close") else []
    return " ".join(answer)


def pairs(number: int, seed: int, *, setting: RubricSetting = STANDARD) -> list[tuple[str, str]]:
    """Return (prompt, answer) pairs of the author, none of them held out."""
    draw = random.Random(f"rubric pairs {seed}")
    drawn: list[tuple[str, str]] = []
    while len(drawn) < number:
        case = draw_case(draw, setting)
        prompt = " ".join([*case, ":"])
        if not is_held_out(prompt):
            drawn.append((prompt, author(case, draw, setting.habits)))
    return drawn


def _follows(answer: Sequence[str], first: str, second: str) -> bool:
    """Tell whether one word stands right before another anywhere in the answer."""
    return any(pair == (first, second) for pair in pairwise(answer))


def meets(case: Sequence[str], answer: Sequence[str], criterion: str) -> bool:
    """Tell whether the words of an answer meet a criterion; a pitfall is met by avoiding it."""
    name, _, argument = criterion.partition(":")
    match name.split("/")[1]:
        case "cause":
            return CAUSE[argument] in answer
        case "dose":
            return {word for word in answer if word in DOSES} == {dose_of(case)}
        case "wrong_cause":
            return {word for word in answer if word in CAUSES} <= {CAUSE[symptom] for symptom in symptoms_of(case)}
        case "term":
            return any(word in JARGON for word in answer)
        case "remedy":
            return REMEDY[argument] in answer
        case "warning":
            return WARNING[argument] in answer
        case "return":
            return _follows(answer, "return", day_of(case))
        case "person":
            return case[0] in answer
        case "duration":
            return _follows(answer, "how", "long")
        case "season":
            return any(TIP[word] in answer for word in case if word in TIP)
        case "greeting":
            return list(answer[:1]) == ["hello"]
        case "close":
            return list(answer[-2:]) == ["take", "care"]
        case "jargon":
            return not any(word in JARGON for word in answer)
        case "warmth":
            return sum(word in WARM for word in answer) >= 3
        case "limit":
            return len(answer) <= int(argument)
        case "steps":
            return "first" in answer and "then" in answer[answer.index("first") :]
        case "sign":
            return _follows(answer, "sign", argument)
    raise KeyError(criterion)


def grade(row: Row, answer: str) -> dict[str, float]:
    """Return each criterion of the row's rubric as 1.0 (met) or 0.0, by the rules."""
    case, words = row["prompt"].split()[:-1], answer.split()
    return {criterion: float(meets(case, words, criterion)) for criterion in row["rubric"]}


def describe(criterion: str) -> str:
    """Return a criterion as a sentence; a pitfall's says what must not be done."""
    name, _, argument = criterion.partition(":")
    return TEXTS[name].format(argument or "the name")


@vector_reward(range=(0.0, 1.0))
def rubric_reward(
    prompts: list[str], completions: list[str], rubric: list[list[str]], **kwargs: Any
) -> list[dict[str, float | None]]:
    """Grade each completion by its prompt's own rubric, exactly; one channel a criterion."""
    return [
        dict(grade({"prompt": prompt, "rubric": criteria}, completion))
        for prompt, completion, criteria in zip(prompts, completions, rubric, strict=True)
    ]
