"""The house rules, read from the source: who imports whom, who may know which library, and that loading is safe."""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from rlhf.runtime.closure import imported_names

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "rlhf"
MODULES = sorted(SOURCE.rglob("*.py"))
STAGES = sorted((ROOT / "stages").glob("[!_]*.py"))
CHECKOUT = ROOT / "stages" / "_checkout.py"

FLOORS = [
    {"errors"},
    {"records", "config", "seeds", "maths"},
    {"models", "data", "runtime"},
    {"training", "labeling", "evaluation"},
]
SIDEWAYS_NEVER = {"training", "labeling", "evaluation"}
ONLY_IN = {  # library: the files and folders of src/rlhf that may import it
    "deepspeed": ("runtime/engine/zero.py", "runtime/engine/shards.py"),
    "mlflow": ("runtime/tracking/",),
    "hydra": ("runtime/stage.py", "runtime/settings.py", "runtime/overrides.py", "runtime/sweeps/"),
    "omegaconf": ("runtime/stage.py", "runtime/settings.py", "runtime/overrides.py", "runtime/guard.py", "runtime/sweeps/"),
    "transformers": ("models/", "data/"),
    "tokenizers": ("models/", "data/"),
    "peft": ("models/",),
    "datasets": ("data/", "models/"),
    "sklearn": ("data/",),
    "tqdm": ("runtime/progress.py",),
    "matplotlib": ("evaluation/plots/",),
    "plotly": ("evaluation/plots/",),
}
NAMES_OF_TYPES = {"transformers.PreTrainedModel", "transformers.PreTrainedTokenizerBase"}  # for annotations, anywhere
STANDARD_ONLY = {"records", "errors"}


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def imports(path: Path) -> set[str]:
    return {name for node in ast.walk(tree(path)) for name in imported_names(node)}


def part(path: Path) -> str:
    """The package, or the module at the top, that a file belongs to."""
    return path.relative_to(SOURCE).with_suffix("").parts[0]


def floor(name: str) -> int:
    return next(height for height, names in enumerate(FLOORS) if name in names)


def shown(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_imports_point_down(path: Path) -> None:
    mine = part(path)
    if mine == "__init__":
        assert not {name for name in imports(path) if name.startswith("rlhf")}
        return
    for theirs in {name.split(".")[1] for name in imports(path) if name.startswith("rlhf.")} - {mine}:
        assert floor(theirs) <= floor(mine), f"{mine} is below {theirs}"
        assert not {mine, theirs} <= SIDEWAYS_NEVER, f"{mine} stands beside {theirs}"
        assert mine not in STANDARD_ONLY or theirs in STANDARD_ONLY


@pytest.mark.parametrize("path", [*MODULES, *STAGES, CHECKOUT], ids=shown)
def test_each_library_is_known_to_its_own_edge_alone(path: Path) -> None:
    for name in imports(path) - NAMES_OF_TYPES:
        allowed = ONLY_IN.get(name.partition(".")[0])
        inside = path.is_relative_to(SOURCE) and path.relative_to(SOURCE).as_posix()
        assert allowed is None or (inside and inside.startswith(allowed)), f"{name} in {shown(path)}"


def test_an_import_upwards_or_of_another_edge_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "x.py"
    path.write_text("def f():\n    from rlhf.training import ppo\n    import mlflow.entities\n")
    assert imports(path) == {"rlhf.training.ppo", "mlflow.entities"}


@pytest.mark.parametrize("path", MODULES, ids=shown)
def test_every_module_imports(path: Path) -> None:
    importlib.import_module(".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__"))


def test_the_plugin_of_hydra_needs_nothing_of_this_project() -> None:
    """DVC loads it in its own process, where another checkout may be the one that is installed."""
    (plugin,) = (ROOT / "src" / "hydra_plugins").glob("*.py")
    assert {name.partition(".")[0] for name in imports(plugin)} == {"__future__", "pathlib", "hydra", "omegaconf"}
    assert "plugins_path = src\n" in (ROOT / ".dvc" / "config").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", STAGES, ids=shown)
def test_a_stage_chooses_its_checkout_before_it_imports_anything_else(path: Path) -> None:
    future, first = [node for node in tree(path).body if isinstance(node, ast.Import | ast.ImportFrom)][:2]
    assert [*imported_names(future), *imported_names(first)] == ["__future__.annotations", "_checkout"]
    assert all(name.partition(".")[0] in sys.stdlib_module_names for name in imports(CHECKOUT))


@pytest.mark.parametrize("path", STAGES, ids=shown)
def test_a_stage_says_what_is_wrong_before_it_imports_what_takes_seconds(path: Path) -> None:
    command = [sys.executable, "-X", "importtime", str(path), "no_such=1"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    says, code = ("unrecognized arguments", 2) if path.stem == "config" else ("no such setting", 1)
    assert done.returncode == code
    assert says in done.stderr
    assert not imported & {"torch", "transformers", "datasets", "mlflow", "matplotlib", "deepspeed"}


@pytest.mark.parametrize("path", STAGES, ids=shown)
def test_a_stage_is_a_page_with_no_maths_of_its_own(path: Path) -> None:
    assert not {name for name in imports(path) if name.split(".")[0] == "torch" or name.startswith("rlhf.maths")}
    assert ast.get_docstring(tree(path))


# --- safe loading ------------------------------------------------------------------------------------------------------

FORBIDDEN_IMPORTS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
FORBIDDEN_CALLS = {
    "eval",
    "exec",
    "yaml.load",
    "yaml.unsafe_load",
    "yaml.full_load",
    "os.system",
    "os.popen",
    "torch.hub.load",
}


def unsafe(path: Path) -> Iterator[str]:
    """What in a file could run code that came with data."""
    yield from (f"imports {name}" for name in imports(path) if name.partition(".")[0] in FORBIDDEN_IMPORTS)
    for call in (node for node in ast.walk(tree(path)) if isinstance(node, ast.Call)):
        name = ast.unparse(call.func)
        given = {word.arg: ast.unparse(word.value) for word in call.keywords if word.arg}
        if name in FORBIDDEN_CALLS:
            yield f"calls {name}"
        if name == "torch.load" and given.get("weights_only") != "True":
            yield "calls torch.load without weights_only=True"
        for word, value in given.items():
            if word in ("trust_remote_code", "allow_pickle", "shell") and value != "False":
                yield f"says {word}={value}"


@pytest.mark.parametrize("path", [*MODULES, *STAGES, CHECKOUT], ids=shown)
def test_nothing_that_is_read_can_run(path: Path) -> None:
    assert list(unsafe(path)) == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from joblib import load",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "AutoModel.from_pretrained(path, trust_remote_code=True)",
        "numpy.load(path, allow_pickle=flag)",
        "yaml.load(text, yaml.Loader)",
        "subprocess.run(command, shell=True)",
        "eval(text)",
    ],
)
def test_each_unsafe_way_is_seen(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.py").write_text(text)
    assert len(list(unsafe(tmp_path / "x.py"))) == 1


# --- the pipeline ------------------------------------------------------------------------------------------------------

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", PIPELINE["stages"])
def test_a_stage_has_one_name_everywhere(name: str) -> None:
    stage = PIPELINE["stages"][name]
    assert stage["cmd"] == f"python stages/{name}.py", "a fixed string: what a setting says must never reach a shell"
    assert stage["outs"] == [f"artifacts/{name}"], "cached, and never kept from one run to the next"


def test_the_pipeline_and_the_scripts_are_the_same_stages() -> None:
    assert sorted(PIPELINE["stages"]) == [path.stem for path in STAGES]


def test_no_setting_is_made_of_code_time_or_machine() -> None:
    for path in (ROOT / "conf").rglob("*.yaml"):
        text = path.read_text(encoding="utf-8")
        body = text.partition("\nhydra:")[0]
        assert "_target_" not in text, shown(path)
        assert not re.search(r"\$\{(hydra|now|oc\.env)[:.]", body), shown(path)
