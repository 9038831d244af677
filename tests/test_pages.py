"""The README keeps to what is measured, to the packaging metadata and to one screen; no page has a dead link.

docs/algorithm.md has a row and a cell of the map for every method, docs/api.md exactly the names that its modules say
they export, each with a docstring.
"""

import contextlib
import importlib
import inspect
import re
import tomllib
from pathlib import Path

import pytest
from datasets import Dataset

import mentions
from rvpo import METHODS
from rvpo.llm.tokenizer import load_tokenizer

# --- README.md and all pages ---


ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def anchors(page):
    """The anchors of a page's headings, as both GitHub and the documentation site make them."""
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_short():
    assert len(README.splitlines()) <= 120


def test_every_figure_of_its_table_stands_in_the_findings():
    findings = (ROOT / "docs" / "findings.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (RVPO 0\.5-2|policy k=2|MaxRL)\b.*?\| (.+?) \| (.+?) \| (.+?) \|$", README, re.MULTILINE)
    assert len(rows) == 3
    assert "method | KL a token | mean | lowest third | neglected | pairs" in findings
    table = findings.split("<!-- begin rivals -->")[1].split("At equal steps, against GDPO:")[1].split("At equal")[0]
    for method, *differences in rows:
        (own,) = [line for line in table.splitlines() if line.startswith(f"| {method} |")]
        assert [cell.split(", p ")[0] for cell in own.split(" | ")[2:5]] == differences
        assert own.endswith("| 64 |")


def test_it_names_the_repository_that_the_metadata_names():
    urls = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]
    (address,) = set(re.findall(r"git\+(\S+?)\"", README))
    assert urls["Repository"] == address
    assert all(url.startswith(address) for url in urls.values())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_inside_the_repository_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"\w+:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_no_page_installs_what_is_not_on_the_registry(page):
    """Who runs `pip install rvpo` would get a stranger's package: it comes from a clone or a git address."""
    commands = re.findall(r"pip install ([^`\n#]+)", page.read_text(encoding="utf-8"))
    by_name = [words for words in commands if re.search(r"(?<![\w/.])rvpo\b(?!\[[\w,]+\] @ git\+)", words)]
    assert by_name == (["rvpo"] if page.name == "README.md" else [])  # where the README says that it is not there


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_script_for_trl_runs_with_the_one_line_changed(tmp_path):
    """A script with TRL's two names and its kind of reward, the import line replaced as the README's diff says."""
    (old,) = re.findall(r"^-(from trl .+)$", README, re.MULTILINE)
    (new,) = re.findall(r"^\+(from rvpo .+)$", README, re.MULTILINE)
    script = f"""
{old}
args = GRPOConfig(
    output_dir="run", use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
    dataloader_pin_memory=False, per_device_train_batch_size=4, num_generations=4, max_completion_length=4,
    max_steps=1, logging_steps=1, save_strategy="no",
)
trainer = GRPOTrainer(
    model=model, reward_funcs=[brevity, mention], args=args, train_dataset=dataset, processing_class=tokenizer
)
trainer.train()
"""
    logged = run_script(script.replace(old, new), tmp_path)
    assert 0 <= logged["channels/mention_reward/mean"] <= 1


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_the_script_of_its_section_on_training_runs(tmp_path):
    """As it stands, but for the model and a run of one step on a CPU."""
    script = re.findall(r"^```python\n(.+?)^```", README.split("## Train")[1], re.MULTILINE | re.DOTALL)[0]
    short = """use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", disable_tqdm=True,
        per_device_train_batch_size=4, num_generations=4, max_completion_length=4, max_steps=1, logging_steps=1,
        dataloader_pin_memory=False, save_strategy="no", """
    for as_written, here in (
        ('"Qwen/Qwen2.5-1.5B-Instruct"', "model, processing_class=tokenizer"),
        ("RVPOConfig(output_dir", f"RVPOConfig({short} output_dir"),
    ):
        assert script.count(as_written) == 1
        script = script.replace(as_written, here)
    logged = run_script(script, tmp_path)
    assert (logged["channels/helpful/mean"], logged["channels/concise/missing"]) == (pytest.approx(0.9), 1.0)


def run_script(script, folder):
    """Run a script that makes a trainer, with a tiny model in its namespace; return what its one step logged."""
    policy = mentions.tiny_policy(folder / "policy")
    names = {
        "model": str(policy),
        "brevity": mentions.brevity_reward,
        "mention": mentions.mention_reward,
        "dataset": Dataset.from_list(mentions.prompts(4, seed=1)),
        "tokenizer": load_tokenizer(policy),
    }
    with contextlib.chdir(folder):
        exec(compile(script, "script", "exec"), names)  # code of this repository
    (logged,) = [row for row in names["trainer"].state.log_history if "rvpo/effective_channels" in row]
    return logged


# --- docs/algorithm.md ---


ALGORITHM = (ROOT / "docs" / "algorithm.md").read_text(encoding="utf-8")
ON_THE_MAP = {
    "corr_grpo": "CorrGRPO",
    "cvar": "CVaR",
    "hard_min": "hard-min",
    "maxrl": "MaxRL",
    "mean_variance": "mean-variance",
    "sa_mrpo": "SA-MRPO",
}
"""What the map calls a method, where it is not its name (in capitals, or as code)."""


def table(heading):
    section = ALGORITHM.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    return [line for line in section.splitlines() if line.startswith("|")]


def test_every_method_has_a_row():
    assert {name for row in table("Methods") for name in re.findall(r"^\| `(\w+)`", row)} == set(METHODS)


def test_every_method_has_a_cell_of_the_map():
    cells = " ".join(table("Map"))
    absent = [
        name
        for name in METHODS
        if not any(text in cells for text in (f"`{name}`", f"**{name.upper()}**", ON_THE_MAP.get(name, "`none`")))
    ]
    assert absent == []


def test_the_map_has_six_cells_a_rule():
    assert {row.count("|") for row in table("Map")} == {8}


# --- docs/api.md ---


API = ROOT / "docs" / "api.md"
ROWS = dict(re.findall(r"^\| `(rvpo[\w.]*)` \| (.+) \|$", API.read_text(encoding="utf-8"), re.MULTILINE))
"""Module -> its cell of the table."""


def listed(module):
    return re.findall(r"`(\w+)`", ROWS[module])


def test_the_table_is_read():
    assert "compute_advantages" in listed("rvpo")
    assert len(ROWS) > 10


@pytest.mark.parametrize("module", ROWS)
def test_the_table_has_the_names_that_the_module_exports(module):
    assert listed(module) == list(importlib.import_module(module).__all__)


@pytest.mark.parametrize("module", ROWS)
def test_every_public_function_and_class_says_what_it_is(module):
    imported = importlib.import_module(module)
    things = {name: getattr(imported, name) for name in listed(module)}
    defined = {name: thing for name, thing in things.items() if inspect.isfunction(thing) or inspect.isclass(thing)}
    assert [name for name, thing in defined.items() if not thing.__doc__] == []
