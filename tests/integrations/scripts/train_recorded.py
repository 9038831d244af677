"""Train with deterministic graders and write every generation, and the log, to a file for each process.

Run alone or under a launcher: `python train_recorded.py '{"policy": ..., "rows": ..., "runs": [...]}'`.
"""

import json
import os
import signal
import sys
from pathlib import Path

import graders
import torch
from recording import Recording, settings
from transformers import TrainerCallback

from rvpo import RVPOConfig, RVPOTrainer
from rvpo.cli.data import load_rows
from rvpo.cli.train import StopGracefully
from rvpo.tasks.policy import load_tokenizer


class SignalAt(TrainerCallback):
    """Send this process a signal at the end of a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


class Recorded(Recording, RVPOTrainer):
    pass


def train(order, name, rewards, options, *, kill_at=None, resume=None, interrupt_rank=None):
    out = Path(order["out"])
    args = RVPOConfig(**settings(out / name, **options))
    rows = load_rows(order["rows"], "train")
    trainer = Recorded(
        model=order["policy"],
        reward_funcs=[getattr(graders, reward) for reward in rewards],
        args=args,
        train_dataset=rows,
        eval_dataset=rows.select(range(6)) if args.eval_strategy != "no" else None,
        processing_class=load_tokenizer(order["policy"]),
        callbacks=[SignalAt(signal.SIGKILL, kill_at)] if kill_at else None,
    )
    assert trainer.accelerator.num_processes == order.get("processes", 1)
    assert trainer.accelerator.device.type == "cpu"
    rank = trainer.accelerator.process_index
    trainer.record_file = out / f"{name}-{rank}.jsonl"
    with StopGracefully() as stop:
        trainer.add_callback(stop)
        if rank == interrupt_rank:
            trainer.add_callback(SignalAt(signal.SIGTERM, 1))
        trainer.train(resume_from_checkpoint=resume)
    end = {"step": trainer.state.global_step, "stopped_by": stop.stopped_by}
    (out / f"{name}-{rank}.log.json").write_text(json.dumps({"history": trainer.state.log_history, **end}))


if __name__ == "__main__":
    order = json.loads(sys.argv[1])
    for run in order["runs"]:
        train(order, **run)
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
