"""Audit a run by what a tracker kept of it: the table of completions in an export of W&B, or trackio's database.

    python examples/audit_exports.py runs/two_rewards                        # TRL's own files
    python examples/audit_exports.py wandb/run-20260101_120000-abcdefgh      # its files/media/table/completions_*.json
    python examples/audit_exports.py ~/.cache/huggingface/trackio/PROJECT.db --html audit.html

A run has that table if it trained with log_completions=True. Curves alone (history.csv) are means over a batch: they
do not say which answer to a prompt got what, which is what an audit reads.
"""

import argparse
import json
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

import pandas

from rvpo.audit import audit_log, audit_page


def tables_of_wandb(run: Path) -> list[pandas.DataFrame]:
    """Return the tables that W&B keeps in a run's folder, and that an export of its files brings."""
    files = run.rglob("completions_*.table.json")
    return [pandas.DataFrame(table["data"], columns=table["columns"]) for table in map(read, files)]


def tables_of_trackio(database: Path) -> list[pandas.DataFrame]:
    """Return the tables that the runs of a trackio project have logged."""
    with closing(sqlite3.connect(database)) as connection:
        logged = [json.loads(entry) for (entry,) in connection.execute("SELECT metrics FROM metrics")]
    return [pandas.DataFrame(entry["completions"]["_value"]) for entry in logged if "completions" in entry]


def read(file: Path) -> dict:
    """Return a file of JSON."""
    return json.loads(file.read_text(encoding="utf-8"))


parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("run", type=Path)
parser.add_argument("--html", type=Path, default=Path("audit.html"))
options = parser.parse_args()

tables = tables_of_trackio(options.run) if options.run.suffix == ".db" else tables_of_wandb(options.run)
with tempfile.TemporaryDirectory() as folder:
    log = options.run
    if tables:
        log = Path(folder) / f"{options.run.stem}.parquet"
        by_step = {table["step"].iloc[0]: table for table in tables}  # TRL logs the last one twice
        pandas.concat([by_step[step] for step in sorted(by_step)]).to_parquet(log)
    result = audit_log(log)
print(result.headline)
for finding in result.findings[1:]:
    print("-", finding.text)
print(result.advice.text)
options.html.write_text(audit_page(result), encoding="utf-8")
