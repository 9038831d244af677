"""Cells of a suite made up by hand, for tests of what reads them; a tiny language model, for tests of the path."""

from rvpo_lab.suite.plan import SuiteSettings
from rvpo_lab.suite.storage import CellRecord, cell_path, write_cell

HELD_OUT = {
    (0, "accuracy/cause:fever"): [0.0, 1.0],
    (0, "communication/close"): [1.0, 1.0],
    (1, "accuracy/dose"): [0.0, 0.0],
}
LOG = {
    "rvpo/k": [0.5, 2.0],
    "channels/judge/accuracy/mean": [0.25, 0.5],
    "channels/judge/accuracy/weight": [0.5, 0.75],
    "channels/judge/accuracy/dead": [0.0, 0.25],
    "channels/judge/accuracy/missing": [0.0, 0.0],
    "channels/judge/communication/mean": [1.0, 1.0],
    "channels/judge/communication/weight": [0.5, 0.25],
    "channels/judge/communication/dead": [1.0, 1.0],
    "channels/judge/communication/missing": [0.0, 0.0],
}


def cell(
    contender="gdpo",
    seed=0,
    *,
    task="rubric",
    held_out=HELD_OUT,
    steps=(0, 10),
    prompts=("child fever :", "adult cough :"),
    log=LOG,
    logged_steps=(5, 10),
    samples=((0, 0, "hello"), (10, 0, "hello virus take care")),
    **about,
):
    """A cell; everything that a test does not set is the same in all of them."""
    settings = {**SuiteSettings(steps=10).__dict__}
    about = {
        "task": task,
        "contender": contender,
        "seed": seed,
        "settings": settings,
        "versions": {"trl": "1.0"},
    } | about
    return CellRecord(
        about,
        list(prompts),
        steps=list(steps),
        held_out={key: list(values) for key, values in held_out.items()},
        logged_steps=list(logged_steps),
        log={key: list(values) for key, values in log.items()},
        samples=[tuple(sample) for sample in samples],
    )


def write_suite(folder, records):
    """Write cells as a suite's folder; return it."""
    for record in records:
        write_cell(record, cell_path(folder, record.cell))
    return folder


TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


def tiny_policy(folder, *, vocabulary=300, texts=("a note about rain, a list of birds.",)):
    """Write a Llama model of random weights with a chat template to a folder; return the folder as text."""
    from transformers import LlamaConfig, LlamaForCausalLM, set_seed

    from rvpo_lab.tasks.policy import byte_tokenizer

    tokenizer = byte_tokenizer(texts, vocabulary, chat_template=TEMPLATE)
    set_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=2,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.2,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)
