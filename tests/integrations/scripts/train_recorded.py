"""Train with deterministic graders and write every generation, and the log, to a file for each process.

Under a launcher: `python train_recorded.py '{"policy": ..., "rows": ..., "out": ..., "runs": [...]}'`. Or by `launch`,
in processes forked from the caller's, which has imported everything.
"""

import gc
import json
import os
import signal
import socket
import sys
import time
import warnings
from pathlib import Path

import graders
import torch
from accelerate.state import AcceleratorState
from recording import Recording, settings
from transformers import TrainerCallback

from rvpo import RVPOConfig, RVPOTrainer
from rvpo.integrations.trl.rows import load_rows
from rvpo.integrations.trl.run import StopGracefully, checkpoint_to_resume, leave_processes
from rvpo.llm.tokenizer import load_tokenizer

LONGEST = 300.0
"""Seconds after which the processes of a launch are killed."""


class SignalAt(TrainerCallback):
    """Send this process a signal at the end of a step."""

    def __init__(self, number, step):
        self.number, self.step = number, step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), self.number)


class Recorded(Recording, RVPOTrainer):
    pass


def kill_in_save(trainer, share):
    """Kill this process inside its second save, after a share of the calls that the first one made."""
    save, calls = trainer._save_checkpoint, []

    def counted(*arguments):
        number = 0

        def count(frame, event, argument):
            nonlocal number
            number += 1
            if calls and number >= share * calls[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(count)
        try:
            save(*arguments)
        finally:
            sys.setprofile(None)
        calls.append(number)

    trainer._save_checkpoint = counted


def fixed_rollouts(prompts, trainer):
    """Answer by step, prompt and place in the whole batch alone, so that any number of processes gives the same."""
    tokenizer = trainer.processing_class
    first = trainer.accelerator.process_index * len(prompts)
    completions = []
    for place, prompt in enumerate(prompts, first):
        seed = [str(trainer.state.global_step), str(place), prompt]
        words = 2 + graders.draw(*seed) % 6
        ids = [3 + graders.draw(*seed, str(word)) % (len(tokenizer) - 3) for word in range(words)]
        completions.append([*ids, tokenizer.eos_token_id])
    return {"prompt_ids": tokenizer(prompts)["input_ids"], "completion_ids": completions, "logprobs": None}


def train(order, name, rewards, options, *, kill_at=None, resume=None, interrupt_rank=None, fixed=False, cut=None):
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
        **({"rollout_func": fixed_rollouts} if fixed else {}),
    )
    assert trainer.accelerator.num_processes == order.get("processes", 1)
    assert trainer.accelerator.device.type == "cpu"
    rank = trainer.accelerator.process_index
    trainer.record_file = out / f"{name}-{rank}.jsonl"
    if cut is not None:
        kill_in_save(trainer, cut)
    with StopGracefully() as stop:
        trainer.add_callback(stop)
        if rank == interrupt_rank:
            trainer.add_callback(SignalAt(signal.SIGTERM, 1))
        trainer.train(resume_from_checkpoint=checkpoint_to_resume(resume, args.output_dir))
    end = {"step": trainer.state.global_step, "stopped_by": stop.stopped_by}
    (out / f"{name}-{rank}.log.json").write_text(json.dumps({"history": trainer.state.log_history, **end}))
    trainer.accelerator.free_memory()


def run_all(order):
    for run in order["runs"]:
        train(order, **run)
    print("<trained>", flush=True)
    leave_processes()


def run_rank(rank, order, port):
    import forked  # in the path of those who fork; this file is also a script

    # As a new process would find them; accelerate collects all garbage after each run.
    forked.own_progress_lock()
    warnings.resetwarnings()
    AcceleratorState._reset_state(reset_partial_state=True)
    gc.freeze()
    if order["processes"] > 1:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": order["processes"]}
        places |= {"LOCAL_WORLD_SIZE": order["processes"], "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in places.items()})
    run_all(order)


def launch(order):
    """Run in new processes, all of which end if one does.

    Return the exit code of the first to fail, negative for a signal, or 0.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    ranks = torch.multiprocessing.start_processes(
        run_rank, (order, port), nprocs=order["processes"], start_method="fork", join=False
    )
    deadline = time.monotonic() + LONGEST
    try:
        while not ranks.join(timeout=5.0):
            if time.monotonic() > deadline:
                for process in ranks.processes:
                    process.kill()
    except torch.multiprocessing.ProcessExitedException as error:
        return error.exit_code
    return 0


if __name__ == "__main__":
    gc.freeze()  # accelerate collects all garbage after each run
    run_all(json.loads(sys.argv[1]))
