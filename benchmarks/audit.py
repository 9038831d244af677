"""Time and peak memory of `rvpo audit` on made-up logs: all methods, four k, 1,000 bootstrap draws.

    python benchmarks/audit.py                      # 1,000,000 rollouts x 17 channels
    python benchmarks/audit.py --rollouts 5900000   # 100,000,000 values: the same peak memory

The log is written to a temporary folder, read by a process of its own, and deleted.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHANNELS = 17
GROUP = 16
PART = 2**12
"""Groups written at once."""

AUDIT = """
import json, resource, sys, time
from rvpo.audit import audit_log
began, cpu = time.monotonic(), time.process_time()
result = audit_log(sys.argv[1])
print(json.dumps({
    "seconds": time.monotonic() - began,
    "cpu_seconds": time.process_time() - cpu,
    "peak_GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    "rollouts": result.rollouts,
    "signals": len(result.methods),
}))
"""


def write_log(file: Path, rollouts: int) -> None:
    """Write pass or fail on every channel, of rates from 0.05 to 0.95, a fiftieth of them missing."""
    draw = np.random.default_rng(0)
    rates = np.linspace(0.05, 0.95, CHANNELS)
    names = [f"reward_{index}" for index in range(CHANNELS)]
    kinds = [("step", pa.int32()), ("group", pa.int64()), *((name, pa.float32()) for name in names)]
    with pq.ParquetWriter(file, pa.schema(kinds)) as writer:
        for first in range(0, rollouts // GROUP, PART):
            groups = np.arange(first, min(first + PART, rollouts // GROUP))
            values = (draw.random((len(groups) * GROUP, CHANNELS)) < rates).astype(np.float32)
            values[draw.random(values.shape) < 0.02] = np.nan
            columns = [np.repeat(groups // 64, GROUP), np.repeat(groups, GROUP), *values.T]
            writer.write_table(pa.table(dict(zip(writer.schema.names, columns, strict=True)), schema=writer.schema))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=1_000_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="rvpo-audit-") as folder:
        file = Path(folder) / "log.parquet"
        began = time.monotonic()
        write_log(file, options.rollouts)
        print(f"written in {time.monotonic() - began:.0f} s: {file.stat().st_size / 1e6:.0f} MB", flush=True)
        run = subprocess.run([sys.executable, "-c", AUDIT, str(file)], capture_output=True, text=True, check=True)
    for name, value in json.loads(run.stdout).items():
        print(f"{name:<12}{value:.2f}" if isinstance(value, float) else f"{name:<12}{value}")


if __name__ == "__main__":
    main()
