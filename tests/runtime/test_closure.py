"""What a stage imports, found by reading it; and dvc.yaml, which has to say the same."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import yaml

from rlhf.config import Config
from rlhf.runtime import closure
from tests.runtime.conftest import ROOT

STAGES = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]


def test_imports_are_followed_however_they_are_written(tmp_path: Path) -> None:
    files = {
        "stages/one.py": "import _first\nimport torch\nfrom rlhf.data.files import read\nfrom rlhf import maths, late\n",
        "stages/_first.py": "import os\n",
        "stages/two.py": "pass\n",
        "src/rlhf/__init__.py": "",
        "src/rlhf/data/__init__.py": "x = 1\n",
        "src/rlhf/data/files.py": "from rlhf.runtime.tracking import start\n",
        "src/rlhf/data/unused.py": "pass\n",
        "src/rlhf/maths.py": "from rlhf.data import files\n",
        "src/rlhf/late/__init__.py": "def later():\n    import rlhf.late.deep\n",
        "src/rlhf/late/deep.py": "pass\n",
        "src/rlhf/runtime/tracking/__init__.py": "from rlhf.data import unused\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert closure.closure(tmp_path, tmp_path / "stages" / "one.py") == [
        "src/rlhf/data/__init__.py",
        "src/rlhf/data/files.py",
        "src/rlhf/late/__init__.py",
        "src/rlhf/late/deep.py",
        "src/rlhf/maths.py",
        "stages/_first.py",
        "stages/one.py",
    ]


def test_code_deps_are_replaced_and_nothing_else() -> None:
    first, last = "stages:\n  a:\n    deps:\n      - data\n", "  b:\n    deps:\n      - stages/b.py\n    params: [p]\n"
    text = f"{first}      - src/rlhf/old.py\n    outs:\n      - x\n{last}"
    expected = f"{first}      - src/rlhf/new.py\n      - stages/a.py\n    outs:\n      - x\n{last}"
    assert closure.with_code_deps(text, {"a": ["src/rlhf/new.py", "stages/a.py"], "b": ["stages/b.py"]}) == expected


@pytest.mark.parametrize("stage", STAGES)
def test_the_deps_of_a_stage_are_its_import_closure(stage: str) -> None:
    code = [path for path in STAGES[stage]["deps"] if path.startswith(("src/", "stages/"))]
    assert code == closure.closure(ROOT, ROOT / "stages" / f"{stage}.py"), "python -m rlhf.runtime.closure --write"


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "config"])
def test_the_settings_that_a_stage_names_are_among_its_params(stage: str) -> None:
    declared = {param.partition(".")[0] for param in STAGES[stage]["params"]}
    read = settings_read(ast.parse((ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8")))
    assert read <= declared
    assert stage in declared, "a stage has a section of its own name"


def settings_read(tree: ast.AST) -> set[str]:
    """X of every `run.config.X` and `config.X`."""
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    read = {node.attr for node in attributes if ast.unparse(node.value) in ("run.config", "config")}
    return read & set(Config.model_fields)


@pytest.mark.parametrize("stage", [stage for stage in STAGES if stage != "config"])
def test_what_a_stage_reads_by_name_is_among_its_deps(stage: str) -> None:
    calls = [node for node in ast.walk(ast.parse((ROOT / "stages" / f"{stage}.py").read_text(encoding="utf-8")))]
    for call in calls:
        match call:
            case ast.Call(
                func=ast.Attribute(value=ast.Name(id="run"), attr="read" | "has"),
                args=[ast.Constant(value=str(maker)), ast.Constant(value=str(file))],
            ):
                path = f"artifacts/{maker}/{file}"
                assert any(f"{path}/".startswith(f"{dep}/") for dep in STAGES[stage]["deps"]), path
