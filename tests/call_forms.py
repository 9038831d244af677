"""Calls written in the forms of chat templates."""

import json


def as_json(values):
    return json.dumps(values, ensure_ascii=False)


def coder_value(value):
    """A value as Qwen3-Coder's template writes it: containers as JSON, anything else by Jinja's `string`."""
    return as_json(value) if isinstance(value, dict | list) else str(value)


def coder(calls):
    return "\n".join(
        f"<tool_call>\n<function={name}>\n"
        + "".join(f"<parameter={key}>\n{coder_value(value)}\n</parameter>\n" for key, value in values.items())
        + "</function>\n</tool_call>"
        for name, values in calls
    )


WRITERS = {
    "hermes": lambda calls: "\n".join(
        f"<tool_call>\n{as_json({'name': name, 'arguments': values})}\n</tool_call>" for name, values in calls
    ),
    "coder": coder,
    "coder without the outer tag": lambda calls: coder(calls).replace("<tool_call>\n", "").replace("</tool_call>", ""),
    "llama with tags": lambda calls: "".join(
        f"<function={name}>{as_json(values)}</function>" for name, values in calls
    ),
    "llama": lambda calls: "; ".join(as_json({"name": name, "parameters": values}) for name, values in calls),
    "llama with its tag": lambda calls: "<|python_tag|>" + WRITERS["llama"](calls),
    "mistral": lambda calls: "[TOOL_CALLS] " + as_json([{"name": n, "arguments": v} for n, v in calls]),
    "mistral, tag dropped": lambda calls: as_json([{"name": n, "arguments": v} for n, v in calls]),
    "mistral 11": lambda calls: "".join(f"[TOOL_CALLS]{name}{as_json(values)}" for name, values in calls),
    "mistral 13": lambda calls: "".join(f"[TOOL_CALLS]{n}[CALL_ID]a1B2c3D4e[ARGS]{as_json(v)}" for n, v in calls),
}
"""Form -> the text of calls (name, arguments), as the templates of these models write them."""
