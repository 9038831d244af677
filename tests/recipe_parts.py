"""What the tests of both trainers' recipes share: a chat template, RLLA's ground truth, and a judge's replies."""

import json
from zlib import crc32

from judging.fault_server import blocks

TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'][:80] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TRUTH = '<think> x </think>\n<tool_call>\n{"name": "add", "parameters": {"a": 1}}\n</tool_call>'


def by_hash(body):
    """A judge to whom chance answers meet some criteria and not others."""
    answer, criteria = blocks(body)
    met = {name: crc32(f"{answer}{text}".encode()) % 3 > 0 for name, text in criteria}
    return json.dumps({"verdicts": [{"id": name, "reason": "", "met": is_met} for name, is_met in met.items()]})
