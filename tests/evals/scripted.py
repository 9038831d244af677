"""Models without a network, whose answers are told; benchmarks run by them with the harness and without."""

import asyncio
import json

from rvpo.evals.benchmark import Benchmark, summarized
from rvpo.evals.models import Answer


class Scripted:
    """Answers `reply(question)`: a text, an `Answer`, or an exception to raise; `asked` are the ids asked for."""

    def __init__(self, reply):
        self.reply, self.asked = reply, []

    async def answer(self, question):
        self.asked.append(question.id)
        reply = self.reply(question)
        if isinstance(reply, Exception):
            raise reply
        return reply if isinstance(reply, Answer) else Answer(reply, tokens=len(reply.split()))


async def asked_once(question, ask):
    return await ask(question)


def run(benchmark: Benchmark, model, folder=None, **options):
    """The summary of a benchmark whose answers are scored as they come; `items.jsonl` has its records."""

    async def scored(question):
        answer = await (benchmark.converse or asked_once)(question, model.answer)
        about = {"tokens": answer.tokens, "is_cut": answer.is_cut, "lost": answer.lost if answer.text is None else ""}
        made = benchmark.score(question, answer)
        return (await made if asyncio.iscoroutine(made) else made) | about

    async def all_of_it():
        try:
            return await asyncio.gather(*map(scored, benchmark.questions))
        finally:
            await (benchmark.close() if benchmark.close else asyncio.sleep(0))

    records = asyncio.run(all_of_it())
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "items.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    return options | summarized(benchmark.name, benchmark.item_score, benchmark.summarize(records), records)


def logged(benchmark: Benchmark, model, folder, *, label="", step=None, temperature=0.0, **options):
    """The log of inspect of a benchmark, answered by a scripted model."""
    from inspect_ai import eval as evaluate
    from inspect_ai.log._samples import sample_active
    from inspect_ai.model import ModelOutput, ModelUsage, get_model

    from rvpo.evals.logs import MODEL
    from rvpo.evals.tasks import as_task

    questions = {question.id: question for question in benchmark.questions}

    async def output(messages, tools, choice, config):
        answer = await model.answer(questions[sample_active().sample.id])
        if answer.text is None:
            raise RuntimeError(answer.lost)
        made = ModelOutput.from_content("mockllm/model", answer.text)
        made.usage = ModelUsage(output_tokens=answer.tokens)
        return made

    (log,) = evaluate(
        as_task(benchmark, temperature=temperature, max_tokens=8),
        model=get_model("mockllm/model", custom_outputs=output, memoize=False),
        log_dir=str(folder),
        metadata={MODEL: {"label": label or folder.name, "step": step}},
        display="none",
        log_realtime=False,
        **options,
    )
    return log


def record(unit, value, repeat=0, *, name="s", bounds=None, missing=0):
    """A scored answer with one score."""
    return {
        "id": f"{unit}/{repeat}",
        "unit": unit,
        "scores": {name: value},
        "bounds": {} if bounds is None else {name: bounds},
        "missing": missing,
    }
