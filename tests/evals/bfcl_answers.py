"""Accepted answers of BFCL's cases, written out as a model would say them: what its checker must accept."""

import json


def accepted(case):
    """The calls of a case's accepted answer, [(name, {parameter: value})], optional parameters left out."""
    calls = []
    for call in case["truth"]:
        ((name, choices),) = call.items()
        function = function_named(case, name)
        types = function["parameters"]
        calls.append((function["name"], made(choices, types["properties"], types["required"])))
    return calls


def function_named(case, name):
    """The description of a function; of the only one where an accepted answer misspells its name."""
    return next((function for function in case["function"] if function["name"] == name), case["function"][0])


LEFT_OUT = object()


def made(choices, types, required):
    """Values by name, from the lists of accepted ones."""
    values = {key: chosen(options, types.get(key, {}), key in required) for key, options in choices.items()}
    return {key: value for key, value in values.items() if value is not LEFT_OUT}


def chosen(options, schema, is_required):
    """The first accepted value of a parameter; LEFT_OUT if it need not be given, [] where none is accepted."""
    if "" in options and not is_required:
        return LEFT_OUT
    known = [option for option in options if option != ""]
    return plain(known[0], schema) if known else next(iter(options), [])


def plain(value, schema):
    """A value without the lists of choices that accepted dictionaries hold."""
    if isinstance(value, dict):
        if not all(isinstance(options, list) for options in value.values()):
            return value
        inner = schema.get("properties") or schema.get("items", {}).get("properties") or {}
        return made(value, inner, ())
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        return [plain(item, schema) for item in value]
    return value


def in_java(value, kind, nested="String"):
    """A value as a Java expression that the checker reads: it keeps the quotes of an array's texts, so none here."""
    match value:
        case bool():
            return str(value).lower()
        case int() if kind == "long":
            return f"{value}L"
        case float() if kind == "float":
            return f"{value}f"
        case list() if kind == "ArrayList":
            return f"new ArrayList<{nested}>(Arrays.asList({', '.join(literal(item, nested) for item in value)}))"
        case list():
            return f"new {nested}[]{{{', '.join(in_java(item, nested) for item in value)}}}"
        case dict():
            puts = " ".join(f'put("{key}", {literal(item, "")});' for key, item in value.items())
            return f"new HashMap<String, Object>() {{{{ {puts} }}}}"
        case _:
            return str(value)


def literal(value, kind):
    """A value inside of a Java collection."""
    return f'"{value}"' if isinstance(value, str) else in_java(value, kind)


def in_javascript(value, kind, nested=None):
    """A value as a JavaScript expression."""
    if kind == "Bigint":
        return f"{value}n"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def answer_text(form, case, calls, language):
    """An answer with these calls in one of the three forms."""
    if form == "prompt":
        return "[" + ", ".join(f"{name}({arguments(case, name, values, language)})" for name, values in calls) + "]"
    calls = [(name, in_source(case, name, values, language)) for name, values in calls]
    if form == "native":
        blocks = [json.dumps({"name": name.replace(".", "_"), "arguments": values}) for name, values in calls]
        return "\n".join(f"<tool_call>\n{block}\n</tool_call>" for block in blocks)
    lines = "\n".join(json.dumps({"name": name, "parameters": values}) for name, values in calls)
    return f"<think> I call them. </think>\n<tool_call>\n{lines}\n</tool_call>"


def in_source(case, name, values, language):
    """Values as the texts of Java's or JavaScript's expressions; Python's stay as they are."""
    if language == "Python":
        return values
    types = function_named(case, name)["parameters"]["properties"]
    write = in_java if language == "Java" else in_javascript
    return {
        key: write(value, types[key]["type"], types[key].get("items", {}).get("type", "String"))
        for key, value in values.items()
    }


def arguments(case, name, values, language):
    """The arguments of a call in BFCL's prompted form."""
    if language == "Python":
        return ", ".join(f"{key}={value!r}" for key, value in values.items())
    written = in_source(case, name, values, language)
    return ", ".join(
        f"{key}={json.dumps(text, ensure_ascii=False) if is_text(values[key]) else text}"
        for key, text in written.items()
    )


def is_text(value):
    """Whether a value is a text to be quoted, and no expression such as "new Point(1, 2)"."""
    return isinstance(value, str) and not value.startswith("new ")


def spoiled(value):
    """Another value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 7919
        case str():
            return f"{value} qqq"
        case list():
            return [*value[:-1], spoiled(value[-1])] if value else ["qqq"]
        case dict() if value:
            ((key, item), *rest) = value.items()
            return {key: spoiled(item), **dict(rest)}
        case _:
            return "qqq"


def with_a_spoiled_value(calls):
    """Calls with one value of the last call that has any spoiled; None where no call has a value."""
    for place in reversed(range(len(calls))):
        name, values = calls[place]
        if values:
            ((key, value), *rest) = values.items()
            return [*calls[:place], (name, {key: spoiled(value), **dict(rest)}), *calls[place + 1 :]]
    return None


def main():
    """Print the share of accepted answers that are right, and of spoiled and doubled ones that are wrong."""
    print("| form | category | accepted answers right | spoiled wrong | doubled wrong |\n|---|---|---|---|---|")
    for form in FORMS:
        for category in (name for name in GROUPS["single_turn"] if "relevance" not in name):
            language, setting = language_of(category), partial(AskedCase, category=category, form=FORMS[form])
            right, spoiled, doubled, refused = [], [], [], []
            for case in load_cases(category):
                calls = accepted(case)
                ask = Question.of(case["id"], 0, "", 0)

                def is_right(these, ask=ask, case=case, setting=setting, form=form, language=language):
                    text = answer_text(form, case, these, language)
                    return record(ask, setting(case), Answer(text))["why"] is None

                right.append(is_right(calls))
                refused += [] if right[-1] else [case["id"]]
                doubled.append(not is_right([*calls, calls[-1]]))
                other = with_a_spoiled_value(calls)
                spoiled += [] if other is None else [not is_right(other)]
            shares = " | ".join(f"{sum(marks)} of {len(marks)}" for marks in (right, spoiled, doubled))
            print(f"| {form} | {category} | {shares} |", " ".join(refused), flush=True)


if __name__ == "__main__":
    from functools import partial

    from rvpo.evals.bfcl import GROUPS, record
    from rvpo.evals.bfcl_forms import FORMS
    from rvpo.evals.bfcl_library import language_of, load_cases
    from rvpo.evals.bfcl_turns import AskedCase
    from rvpo.evals.models import Answer, Question

    main()
