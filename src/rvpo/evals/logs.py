"""Scored items from the files of any harness: what `rvpo compare` and tables read.

    inspect   .eval, .json: every scorer of every sample; a mapping of scores gives "SCORER/KEY" for each key
    lm-eval   samples_*.jsonl of `--log_samples`: every metric, as "METRIC,FILTER" where there are several filters
    plain     .jsonl, .json, .parquet, .csv: rows with an id, scores, and where there are such columns seed and epoch

Each becomes records (`rvpo.evals.benchmark.Record`). Items pair up by id *and* by what was asked, where the file says
that: two runs whose samples were numbered in another order have no item in common, instead of wrong pairs.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rvpo.data.rows import READERS, raw_rows
from rvpo.errors import ConfigError
from rvpo.evals.benchmark import Record

__all__ = ["IDS", "MODEL", "OWN", "Log", "differences", "is_log_file", "read_log", "read_logs"]

IDS = ("id", "sample_id", "item_id", "question_id", "prompt_id", "item", "unit")
"""Columns of a plain file that may name the item, in this order."""
MODEL, OWN = "rvpo_model", "rvpo"
"""Keys of a log's metadata: label and step of the model, and what the scores of `rvpo eval` are."""
SAMPLING = ("temperature", "top_p", "max_tokens", "seed")
REPEATS = ("epoch", "repeat")
SEED = "seed"
LETTERS = {"C": 1.0, "P": 0.5, "I": 0.0, "N": 0.0, "yes": 1.0, "true": 1.0, "no": 0.0, "false": 0.0}
"""Values that inspect's own metrics read as numbers."""
UNIT_INTERVAL = [0.0, 1.0]


@dataclass(frozen=True)
class Log:
    """The scored items of one model on one task, or of several training seeds of it."""

    path: Path
    task: str
    """"" where the file does not say it."""
    model: str
    """"" where the file does not say it."""
    seeds: tuple[Sequence[Record], ...]
    """Records of each seed; one where there are none. A record's `tags` maps a name to the texts that an item has."""
    score: str
    """The score that is compared where none is asked for; "" where there are several of equal standing."""
    settings: Mapping[str, Any]
    """What a comparison should have in common, by dotted names."""
    step: int | None = None
    """Of training, where the model is a checkpoint and the log says so."""
    is_own: bool = False
    """The records are those of a benchmark of `rvpo eval`, whole."""

    @property
    def names(self) -> list[str]:
        """Return the names of all scores."""
        return list(dict.fromkeys(name for records in self.seeds for record in records for name in record["scores"]))


def is_log_file(path: Path) -> bool:
    """Return whether a path is a file that `read_log` can try."""
    return path.is_file() and (path.suffix == ".eval" or path.suffix in READERS)


def read_log(path: str | Path, *, id_column: str | None = None) -> Log:
    """Return what a file holds; `id_column` names the items of a plain file.

    Raises ConfigError for a file of no known kind, one without items or ids, or inspect's without inspect-ai.
    """
    path = Path(path)
    if not is_log_file(path):
        raise ConfigError(f"{path} is no log: give a file that ends in .eval, {', '.join(READERS)}")
    if path.suffix == ".eval" or (path.suffix == ".json" and _is_inspect(path)):
        return _inspect_log(path)
    rows = [row for _, row in raw_rows(str(path), "test")]
    return _lm_eval_log(path, rows) if {"doc_id", "doc"} <= rows[0].keys() else _plain_log(path, rows, id_column)


def _is_inspect(path: Path) -> bool:
    with path.open(encoding="utf-8") as stream:
        head = stream.read(4096)
    return head.lstrip().startswith("{") and '"eval"' in head and '"status"' in head


def _inspect_log(path: Path) -> Log:
    if find_spec("inspect_ai") is None:
        raise ConfigError(f"{path} is a log of inspect, not installed here: pip install 'rvpo[evals]'")
    from inspect_ai.log import read_eval_log

    try:
        log = read_eval_log(str(path), exclude_fields={"events", "attachments", "store"})
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(f"cannot read {path}: {error}") from error
    if log.status != "success" or not log.samples:
        raise ConfigError(f"{path} is not finished: its status is {log.status!r}; go on with the command that made it")
    graded = [(sample, _inspect_scores(sample)) for sample in log.samples]
    values = [(name, value) for _, scores in graded for name, value in scores.items()]
    names = list(dict.fromkeys(name for name, value in values if _number(value) is not None))
    if not names:
        raise ConfigError(f"{path} has no scores: its status is {log.status!r}; score it with `inspect score`")
    metadata = log.eval.metadata or {}
    model = metadata.get(MODEL, {})
    label, step = str(model.get("label") or log.eval.model), model.get("step")
    if OWN in metadata:
        return _own_log(path, log, metadata[OWN], label, step)
    # A letter or a truth value lies between 0 and 1 where it is missing; of other numbers nothing is known.
    plain = [(name, value) for name, value in values if isinstance(value, int | float | str) and value not in LETTERS]
    unbounded = {
        name for name, value in plain if not isinstance(value, bool) and not math.isnan(_number(value) or 0.0)
    }
    records = [_inspect_record(sample, scores, names, unbounded) for sample, scores in graded]
    first = names[0].partition("/")[0]
    only = names[0] if len([name for name in names if name.partition("/")[0] == first]) == 1 else ""
    generate = log.eval.model_generate_config.model_dump(exclude_none=True)
    settings = {
        "task": log.eval.task,
        "task_args": dict(log.eval.task_args),
        "epochs": log.eval.config.epochs,
        "sampling": {name: generate.get(name) for name in SAMPLING},
        "version": log.eval.task_version,
    }
    return Log(path, log.eval.task, label, (records,), only, settings, step)


def _own_log(path: Path, log: Any, about: Mapping[str, Any], label: str, step: int | None) -> Log:
    """Return the log of a benchmark of `rvpo eval`, whose scores carry their records."""
    records: list[Record] = []
    for sample in log.samples:
        for score in (sample.scores or {}).values():
            records.append({**(score.metadata or {}), "scores": dict(score.value), "tags": _tags(sample.metadata)})
    order = {str(name): place for place, name in enumerate(log.eval.dataset.sample_ids or ())}
    records.sort(key=lambda record: order.get(record["id"], len(order)))  # not that in which they were finished
    configs = [log.plan.config, log.eval.model_generate_config]
    drawn = {name: value for config in configs for name, value in config.model_dump(exclude_none=True).items()}
    settings = {**about, "sampling": {name: drawn.get(name) for name in SAMPLING}}
    return Log(path, str(about["benchmark"]), label, (records,), str(about["item_score"]), settings, step, is_own=True)


def read_logs(folder: str | Path) -> list[Log]:
    """Return the finished logs of inspect in a folder and beneath it, by folder, task and training step.

    Raises ConfigError if there is none, or no such folder.
    """
    if not Path(folder).exists():
        raise ConfigError(f"there is no file or folder {folder}")
    logs, left = [], ""
    for file in sorted(Path(folder).rglob("*.eval")):
        try:
            logs.append(read_log(file))
        except ConfigError as error:
            left = f": {error}"
    if not logs:
        raise ConfigError(f"there are no finished results in {folder}{left or '; make some with `rvpo eval`'}")
    return sorted(logs, key=lambda log: (str(log.path.parent), log.task, log.step is None, log.step or 0))


def _inspect_scores(sample: Any) -> dict[str, Any]:
    """Return every score of a sample as the log has it, by its name."""
    scores: dict[str, Any] = {}
    for scorer, score in (sample.scores or {}).items():
        parts = score.value if isinstance(score.value, Mapping) else {"": score.value}
        scores |= {f"{scorer}/{key}" if key else scorer: value for key, value in parts.items()}
    return scores


def _inspect_record(sample: Any, scores: Mapping[str, Any], names: Sequence[str], unbounded: set[str]) -> Record:
    """Return the record of a sample; one that ended in an error lacks every score of the log."""
    if sample.error is not None or not scores:
        scores = dict.fromkeys(names)
    content = sample.input if isinstance(sample.input, str) else [[part.role, part.text] for part in sample.input]
    record = _record(sample.id, sample.epoch, content, _numbers(scores), _tags(sample.metadata))
    missing = [name for name, value in record["scores"].items() if value is None and name not in unbounded]
    return record | {"bounds": dict.fromkeys(missing, UNIT_INTERVAL)}


def _number(value: object) -> float | None:
    """Return a score as a number, NaN where it is missing, None for what is none: a text, a list."""
    if isinstance(value, str):
        try:
            return LETTERS[value] if value in LETTERS else float(value)
        except ValueError:
            return None
    if value is None:
        return math.nan
    return float(value) if isinstance(value, int | float) else None


def _numbers(values: Mapping[str, object]) -> dict[str, float]:
    """Return those of some values that are numbers."""
    return {name: number for name, value in values.items() if (number := _number(value)) is not None}


def _record(
    item: object, repeat: object, content: object, scores: Mapping[str, float], tags: Mapping[str, list[str]]
) -> Record:
    """Return a record whose unit is the item's id with a hash of what was asked, where that is known."""
    digest = hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]
    unit = str(item) if content is None else f"{item} {digest}"
    known = {name: None if math.isnan(value) else value for name, value in scores.items()}
    missing = sum(value is None for value in known.values())
    return {"id": f"{unit}/{repeat}", "unit": unit, "scores": known, "bounds": {}, "tags": tags, "missing": missing}


def _texts(value: object) -> list[str]:
    """Return the texts that a value of metadata files an item under: itself, those of a list, none otherwise."""
    if isinstance(value, list | tuple):
        return [str(part) for part in value if isinstance(part, str | int)]
    return [str(value)] if isinstance(value, str | int) and len(str(value)) <= 80 else []


def _tags(values: Mapping[str, object] | None) -> dict[str, list[str]]:
    return {name: texts for name, value in (values or {}).items() if (texts := _texts(value))}


def _lm_eval_log(path: Path, rows: Sequence[Mapping[str, Any]]) -> Log:
    filters = {str(row.get("filter", "none")) for row in rows}
    records = []
    for place, row in enumerate(rows):
        suffix = f",{row['filter']}" if len(filters) > 1 else ""
        values = {f"{name}{suffix}": _lm_value(row[name]) for name in row.get("metrics", ()) if name in row}
        doc = row["doc"] if isinstance(row["doc"], Mapping) else {}
        content = row.get("doc_hash") or row["doc"]
        records.append(_record(row["doc_id"], place, content, _numbers(values), _tags(doc)))
    names = list(dict.fromkeys(name for record in records for name in record["scores"]))
    if not names:
        raise ConfigError(f"{path} has no metric with one number a sample; it names {rows[0].get('metrics')}")
    task = path.stem.removeprefix("samples_").partition("_2")[0]
    return Log(path, task, path.parent.name, (records,), names[0] if len(names) == 1 else "", {"task": task})


def _lm_value(value: Any) -> object:
    """Return a metric of a sample; of a list, as IFEval's of instructions, the mean."""
    is_list = isinstance(value, list) and value and all(isinstance(part, int | float) for part in value)
    return sum(value) / len(value) if is_list else value


def _plain_log(path: Path, rows: Sequence[Mapping[str, Any]], id_column: str | None) -> Log:
    name = id_column or next((name for name in IDS if name in rows[0]), None)
    if name is None or name not in rows[0]:
        raise ConfigError(
            f"{path} needs a column that names the items, as {IDS[0]}, or --id NAME; it has {sorted(rows[0])}"
        )
    aside = {name, SEED, *REPEATS, *IDS}
    columns = [key for key in dict.fromkeys(key for row in rows for key in row) if key not in aside]
    scores = [key for key in columns if _is_score(row.get(key) for row in rows)]
    if not scores:
        raise ConfigError(f"{path} needs a column of numbers beside {name!r}; it has {sorted(rows[0])}")
    seeds: dict[Any, list[Record]] = {}
    for place, row in enumerate(rows):
        if row.get(name) is None:
            raise ConfigError(f"{path}, row {place + 1}: {name!r} is absent or empty")
        values = {key: row.get(key) for key in columns}
        numbers = {key: math.nan if (number := _number(values[key])) is None else number for key in scores}
        tags = _tags({key: values[key] for key in columns if key not in scores})
        repeat = next((row[key] for key in REPEATS if key in row), place)
        seeds.setdefault(row.get(SEED), []).append(_record(row[name], repeat, None, numbers, tags))
    main = "score" if "score" in scores else scores[0] if len(scores) == 1 else ""
    ordered = sorted(seeds, key=lambda seed: (str(type(seed)), seed))
    return Log(path, "", path.stem, tuple(seeds[seed] for seed in ordered), main, {})


def _is_score(values: Iterable[object]) -> bool:
    """Return whether a column has numbers or truth values only, some of which may be absent."""
    present = [value for value in values if value not in (None, "")]
    return bool(present) and all(_number(value) is not None for value in present)


def differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> str:
    """Return in words where the settings of two logs differ, "" for nowhere; where a server was does not count."""
    before, after = _dotted(first), _dotted(second)
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    apart = [name for name in names if not name.endswith(("_url", "data"))]
    return ", ".join(f"{name} {before.get(name)!r} and {after.get(name)!r}" for name in apart)


def _dotted(value: Any, name: str = "") -> dict[str, Any]:
    """Return nested mappings as one, by dotted names."""
    if not isinstance(value, Mapping) or not value:
        return {name: value}
    parts = [_dotted(part, f"{name}.{key}" if name else key) for key, part in value.items()]
    return {key: leaf for part in parts for key, leaf in part.items()}
