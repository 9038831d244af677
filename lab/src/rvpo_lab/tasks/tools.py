"""A task of tool calling in the RLLA format: choose the tool and fill its arguments from the prompt.

A prompt offers three of eight tools, each with its parameters, and then asks for one of them in other words:

    tools route ( start goal ) ; weather ( city unit ) ; play ( song volume ) ; ask forecast oslo celsius :

The expected answer is a thought and one call:

    <think> weather </think>
    <tool_call>
    {"name": "weather", "parameters": {"city": "oslo", "unit": "celsius"}}
    </tool_call>

Channels are RLLA's own (`rvpo.rewards.tool_calling`): format in {0, 1}, correctness in [-3, 3].

Design, fixed before any method was run on it: the author of the warm start breaks the form, picks another tool,
leaves out an argument or fills in a wrong value, each with its own probability (`AUTHOR`), so that format starts at
about a third and a correct call in the right form is rarer. Which verb means which tool, and which value belongs to
which parameter, must be learnt; both channels can be met at once, so there is no conflict here.
"""

import json
import random
from typing import Any

from rvpo.rewards.tool_calling import correctness_reward, format_reward
from rvpo_lab.tasks.task import Row, is_held_out

__all__ = ["AUTHOR", "describe", "grade", "pairs", "rows", "tokenizer"]

VALUES = {
    "city": ("oslo", "rome", "lima", "cairo", "delhi"),
    "unit": ("celsius", "kelvin"),
    "day": ("today", "friday", "sunday"),
    "song": ("blues", "waltz", "tango", "march"),
    "volume": ("low", "loud"),
    "item": ("bread", "milk", "salt", "apples"),
    "amount": ("one", "two", "three"),
    "start": ("north", "south", "east", "west"),
    "goal": ("harbour", "station", "museum", "market"),
    "person": ("ana", "bo", "chen", "dora"),
    "text": ("late", "ready", "thanks", "call"),
    "currency": ("euro", "peso", "rupee", "yen"),
}
TOOLS = {
    "weather": ("city", "unit"),
    "calendar": ("day", "person"),
    "play": ("song", "volume"),
    "order": ("item", "amount", "day"),
    "route": ("start", "goal"),
    "message": ("person", "text"),
    "exchange": ("currency", "amount"),
    "flight": ("city", "day", "amount"),
}
VERBS = {
    "weather": ("forecast", "outside"),
    "calendar": ("meet", "appointment"),
    "play": ("hear", "listen"),
    "order": ("buy", "need"),
    "route": ("walk", "way"),
    "message": ("tell", "write"),
    "exchange": ("change", "convert"),
    "flight": ("fly", "travel"),
}
AUTHOR = {"form": 0.35, "tool": 0.5, "left_out": 0.25, "wrong_value": 0.35}
"""How often the author keeps the form, picks the right tool, leaves out an argument, and fills in a wrong value."""

FRAGMENTS = (
    "<think> ", " </think>", "<tool_call>", "</tool_call>", "\n", '{"name": "', '", "parameters": {"', '": "', '", "',
    '"}}', '", "parameters": {}}',
)  # fmt: skip


def tokenizer() -> Any:
    """Return a tokenizer of whole words and of the fragments of the form; decoding gives the text back as it was."""
    # Here, because naming the task's methods and help texts needs no torch.
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    from rvpo_lab.tasks.policy import SPECIAL, wrap_tokenizer

    words = ["tools", "(", ")", ";", "ask", ":", " ", *TOOLS, *VALUES]
    words += [word for group in (*VALUES.values(), *VERBS.values()) for word in group]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*SPECIAL, *FRAGMENTS, *words]))}
    built = Tokenizer(models.WordLevel(vocabulary, unk_token=SPECIAL[2]))
    longest_first = sorted(FRAGMENTS, key=len, reverse=True)
    pattern = "|".join([*map(_literal, longest_first), r"\w+", r"[^\w\s]"])
    # Prompts separate words by spaces, which carry nothing: they are removed. In answers they are inside fragments.
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), "isolated"),
            pre_tokenizers.Split(Regex(r"^ +$"), "removed"),
        ]
    )
    built.decoder = decoders.Fuse()
    return wrap_tokenizer(built)


def _literal(text: str) -> str:
    """Return a pattern that matches the text itself."""
    return "".join(f"\\{letter}" if letter in '{}|"?.*+()[]^$\\' else letter for letter in text)


def _draw(draw: random.Random) -> tuple[str, str, dict[str, str], list[str]]:
    """Return a random prompt, the tool it asks for, the arguments, and the tools on offer."""
    offered = draw.sample(list(TOOLS), 3)
    tool = draw.choice(offered)
    arguments = {name: draw.choice(VALUES[name]) for name in TOOLS[tool]}
    offer = " ; ".join(f"{name} ( {' '.join(TOOLS[name])} )" for name in offered)
    values = list(arguments.values())
    draw.shuffle(values)
    return f"tools {offer} ; ask {draw.choice(VERBS[tool])} {' '.join(values)} :", tool, arguments, offered


def _answer(tool: str, arguments: dict[str, str]) -> str:
    call = json.dumps({"name": tool, "parameters": arguments})
    return f"<think> {tool} </think>\n<tool_call>\n{call}\n</tool_call>"


def rows(number: int, seed: int, *, held_out: bool = False) -> list[dict[str, Any]]:
    """Return rows with `prompt` and `ground_truth`, drawn by the seed."""
    draw = random.Random(f"tools rows {seed}")
    drawn: list[dict[str, Any]] = []
    while len(drawn) < number:
        prompt, tool, arguments, _ = _draw(draw)
        if is_held_out(prompt) == held_out:
            drawn.append({"prompt": prompt, "ground_truth": _answer(tool, arguments)})
    return drawn


def _imperfect(draw: random.Random, tool: str, arguments: dict[str, str], offered: list[str]) -> str:
    """Return the author's answer."""
    if draw.random() >= AUTHOR["tool"]:
        tool = draw.choice(offered)
    filled = {}
    for name in TOOLS[tool]:
        if draw.random() < AUTHOR["left_out"]:
            continue
        wrong = name not in arguments or draw.random() < AUTHOR["wrong_value"]
        filled[name] = draw.choice(VALUES[name]) if wrong else arguments[name]
    answer = _answer(tool, filled)
    if draw.random() < AUTHOR["form"]:
        return answer
    broken = draw.choice(("no thought", "no line break", "no end"))
    if broken == "no thought":
        return answer.split("\n", 1)[1]
    return answer.replace("</think>\n", "</think>") if broken == "no line break" else answer.rsplit("\n", 1)[0]


def pairs(number: int, seed: int) -> list[tuple[str, str]]:
    """Return (prompt, answer) pairs of the author, none of them held out."""
    draw = random.Random(f"tools pairs {seed}")
    drawn: list[tuple[str, str]] = []
    while len(drawn) < number:
        prompt, tool, arguments, offered = _draw(draw)
        if not is_held_out(prompt):
            drawn.append((prompt, _imperfect(draw, tool, arguments, offered)))
    return drawn


def grade(row: Row, answer: str) -> dict[str, float]:
    """Return both channels on [0, 1]: format as it is, correctness from -3 to 3 mapped linearly."""
    truth = [row["ground_truth"]]
    return {
        "format/form": format_reward([answer], truth)[0],
        "correctness/call": (correctness_reward([answer], truth)[0] + 3) / 6,
    }


def describe(criterion: str) -> str:
    """Return a criterion as a sentence."""
    return {
        "format/form": "Has the form that was asked for.",
        "correctness/call": "Calls the right tool with the right arguments.",
    }[criterion]
