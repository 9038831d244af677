"""Rubric data sets as files that verl trains on: `python -m rvpo.integrations.verl.rows NAME --out FILE.parquet`."""

import argparse
import json
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rvpo.data.formats import POLARITY_RULES
from rvpo.data.load import FORMATS, load_rubric_rows
from rvpo.data.rows import RubricRow
from rvpo.errors import RvpoError
from rvpo.files import replaced

__all__ = ["main", "verl_rows"]

EXAMPLES = """
examples:
  python -m rvpo.integrations.verl.rows anisha2102/RaR-Medicine --out data/rar_medicine_train.parquet
  python -m rvpo.integrations.verl.rows anisha2102/RaR-Medicine --split val --out data/rar_medicine_val.parquet
  python -m rvpo.integrations.verl.rows rubrics.jsonl --limit 100 --out data/few.parquet
"""


def verl_rows(rows: Iterable[RubricRow]) -> list[dict[str, Any]]:
    """Return canonical rows as verl's: the rubric as JSON in `reward_model.ground_truth`.

    As JSON because Arrow would give every criterion the keys of all others, and verl's score function takes text.
    `extra_info.prompt` repeats the conversation, which verl keeps from the score function otherwise.
    """
    return [
        {
            "data_source": row["source"],
            "prompt": [dict(message) for message in row["prompt"]],
            "ability": "rubric",
            "reward_model": {"style": "rubric", "ground_truth": json.dumps(row["rubric"])},
            "extra_info": {"index": index, "id": row["id"], "prompt": json.dumps(row["prompt"])},
        }
        for index, row in enumerate(rows)
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the file; return the exit status (2: an error of the input)."""
    options = _parser().parse_args(arguments)
    try:
        loaded = load_rubric_rows(
            options.name, format=options.format, split=options.split, polarity=options.polarity, limit=options.limit
        )
        _write(verl_rows(loaded.rows), options.out)
    except RvpoError as error:
        print(f"rvpo.integrations.verl.rows: error: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    print(f"{options.out}: {len(loaded.rows)} rows ({loaded.dropped} without prompt or rubric dropped)")
    return 0


def _write(rows: list[dict[str, Any]], file: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    with replaced(file) as stream:
        parquet.write_table(pyarrow.Table.from_pylist(rows), stream)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m rvpo.integrations.verl.rows",
        description="Write a rubric data set as the parquet file that verl trains on (data.train_files).",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("name", help="hub name, saved folder, or .jsonl, .json, .csv or .parquet file")
    parser.add_argument("--out", type=Path, required=True, help="the parquet file to write")
    parser.add_argument("--split", default="train", help="part of a hub name or folder (default: train)")
    parser.add_argument("--format", choices=FORMATS, help="how the rows are read (default: guessed)")
    parser.add_argument("--polarity", choices=POLARITY_RULES, help="for RaR: how pitfalls are worded")
    parser.add_argument("--limit", type=int, help="read at most so many rows")
    return parser


if __name__ == "__main__":
    sys.exit(main())
