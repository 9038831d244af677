"""Training through a served judge with and without faults: python benchmarks/judged_training.py

The rubric task's policy is trained by RVPO with `RubricReward` over HTTP. The judge on loopback grades by the task's
rules; with faults, 30 % of its replies fail in eight ways, and what stays unreadable after one ask is missing. Both
start from one warm start, see the same prompts and are graded exactly on the same held-out prompts.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))

from judging.fault_server import FaultServer, block, blocks, seldom
from rvpo.integrations.trl.run import RVPOScriptArguments, run
from rvpo.judging.criteria import Criterion
from rvpo_lab.suite.plan import Cell, SuiteSettings
from rvpo_lab.suite.results import run_scores
from rvpo_lab.suite.storage import CellRecord
from rvpo_lab.suite.train_cell import HeldOutGrading, config
from rvpo_lab.tasks.catalog import TASKS
from rvpo_lab.tasks.policy import warm_policy
from rvpo_lab.tasks.rubric import meets

from trl import ModelConfig  # isort: skip

TASK = TASKS["rubric"]


def by_the_rules(body):
    """Reply as the task's exact grader; criteria are sent by their names."""
    answer, criteria = blocks(body)
    case = json.loads(block(body, "conversation")).split()[:-1]
    # A pitfall is asked for as the fault it is.
    listed = [
        {"id": name, "reason": "by the rules", "met": meets(case, answer.split(), text.removeprefix("not "))
         != text.startswith("not ")}
        for name, text in criteria
    ]  # fmt: skip
    return json.dumps({"verdicts": listed})


def criterion(name):
    axis, _, rest = name.partition("/")
    is_pitfall = TASK.describe(name).startswith("Pitfall")
    polarity, text = ("negative", f"not {name}") if is_pitfall else ("positive", name)
    return Criterion(rest, text, polarity=polarity, tags=(axis,)).to_row()


def train(seed, steps, share):
    """Return the scores of one run and the share of its verdicts that was missing."""
    settings = SuiteSettings(steps=steps, evaluate_every=steps)
    held_out = TASK.rows(settings.held_out_prompts, seed, held_out=True)
    about = {"task": "rubric", "contender": "rvpo", "seed": seed}
    record = CellRecord(about, [row["prompt"] for row in held_out])
    with tempfile.TemporaryDirectory() as folder, FaultServer(seldom(share, seed), by_the_rules) as server:
        rows = Path(folder) / "rows.jsonl"
        lines = [
            {"prompt": row["prompt"], "rubric": [criterion(name) for name in row["rubric"]]}
            for row in TASK.rows(settings.prompts_per_step * steps, seed)
        ]
        rows.write_text("".join(json.dumps(line) + "\n" for line in lines))
        judge = {
            "model": "rules", "base_url": server.url, "criteria_per_call": 8, "asks": 1, "timeout": 1.0,
            "store": f"{folder}/verdicts.sqlite", "max_missing": 0.5,
        }  # fmt: skip
        script = RVPOScriptArguments(dataset_name=str(rows), reward_funcs=["rubric"], judge=judge)
        trainers = []

        def prepare(trainer):
            trainer.add_callback(HeldOutGrading(trainer, TASK, held_out, record, settings.evaluate_every))
            trainers.append(trainer)

        run(
            script,
            config(Cell("rubric", "rvpo", seed), settings, TASK, Path(folder) / "run"),
            ModelConfig(model_name_or_path=str(warm_policy(TASK))),
            prepare=prepare,
        )
        counts = trainers[0].reward_funcs[0].judge.counts
    lost = sum(counts[outcome] for outcome in ("unparsed", "refused", "failed"))
    (scores,) = run_scores([record]).to_dict("records")
    return scores, lost / counts.total()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    by_share = {}
    for seed in range(options.seeds):
        for share in (0.0, 0.3):
            scores, missing = train(seed, options.steps, share)
            by_share.setdefault(share, []).append(scores)
            finals = "  ".join(f"{name} {scores[f'final_{name}']:.3f}" for name in ("mean", "lowest", "neglected"))
            start = scores["start_mean"]
            print(
                f"RESULT faults {share:.0%} seed {seed}: missing {missing:.1%}  start {start:.3f}  {finals}",
                flush=True,
            )
    for share, scores in by_share.items():
        means = [of_seed["final_mean"] for of_seed in scores]
        spread = statistics.stdev(means) if len(means) > 1 else float("nan")
        print(f"RESULT faults {share:.0%}: held-out mean {statistics.mean(means):.3f}, spread over seeds {spread:.3f}")


if __name__ == "__main__":
    main()
