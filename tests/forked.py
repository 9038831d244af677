"""`rvpo` in a process of its own, forked from this one, which has imported what a new one would take seconds to."""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from pathlib import Path

from tqdm import tqdm


def start(words, printed=os.devnull, own_session=False, **environment):
    """Start `rvpo WORDS` and return its process; what it prints is appended to the file `printed`."""
    arguments = (words, printed, own_session, environment)
    process = multiprocessing.get_context("fork").Process(target=_rvpo, args=arguments)
    process.start()
    return process


def own_progress_lock():
    """Give tqdm a lock of this process's own.

    Its usual one is shared by all forks, so that one that is killed while it holds it stops the others for good.
    """
    lock, kinds = threading.RLock(), [tqdm]
    for kind in kinds:
        kind.set_lock(lock)
        kinds += kind.__subclasses__()


def _rvpo(words, printed, own_session, environment):
    from rvpo.cli.main import main

    if own_session:
        os.setsid()
    # As a new process would find them.
    own_progress_lock()
    warnings.resetwarnings()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.update(environment)
    if accelerate := sys.modules.get("accelerate.state"):
        accelerate.AcceleratorState._reset_state(reset_partial_state=True)
    file = Path(printed).open("a", buffering=1)  # noqa: SIM115
    for number in (1, 2):
        os.dup2(file.fileno(), number)
    sys.stdout = sys.stderr = file
    sys.exit(main([str(word) for word in words]))
