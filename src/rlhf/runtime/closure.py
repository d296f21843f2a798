"""Keeps the deps of dvc.yaml in line with the code: a stage depends on its script and on every module that it imports.

    python -m rlhf.runtime.closure            # says what is out of line, and ends with 1
    python -m rlhf.runtime.closure --write    # mends it

What only shows or records a result, and sweeps, which DVC never runs, are left out (`EXEMPT`), so that a change of a plot
does not train a model anew.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import yaml

EXEMPT = (
    "src/rlhf/runtime/tracking/",
    "src/rlhf/runtime/progress.py",
    "src/rlhf/runtime/sweeps/",
    "src/rlhf/evaluation/plots/",
    "src/rlhf/evaluation/swept/",
)
CODE_LINE = re.compile(r"^      - (src|stages)/")


def closure(root: Path, script: Path) -> list[str]:
    """The script and the files of this project that it imports, directly or not, as sorted paths from root."""
    found: set[Path] = set()
    waiting = [script]
    while waiting:
        file = waiting.pop()
        path = file.relative_to(root).as_posix()
        if file not in found and not path.startswith(EXEMPT):
            found.add(file)
            waiting += imported_files(root, file)
    paths = (file for file in found if file.stat().st_size)  # an empty __init__.py says nothing
    return sorted(file.relative_to(root).as_posix() for file in paths)


def imported_files(root: Path, file: Path) -> list[Path]:
    """The files of src/ and stages/ behind a file's import statements, wherever in it they stand."""
    names = {name for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) for name in imported_names(node)}
    modules = {".".join(name.split(".")[:length]) for name in names for length in range(1, name.count(".") + 2)}
    candidates = (root / folder / Path(*module.split(".")) for folder in ("src", "stages") for module in modules)
    return [path for place in candidates for path in (place.with_suffix(".py"), place / "__init__.py") if path.is_file()]


def imported_names(node: ast.AST) -> Iterator[str]:
    """Every dotted name that a statement may import; `from a import b` may mean the module a.b."""
    match node:
        case ast.Import(names=names):
            yield from (name.name for name in names)
        case ast.ImportFrom(module=str(module), names=names, level=0):
            yield from (f"{module}.{name.name}" for name in names)


def with_code_deps(text: str, dependencies: dict[str, Sequence[str]]) -> str:
    """The text of a dvc.yaml with the code among each stage's deps replaced; all else stays as it is."""
    lines: list[str] = []
    stage, inside = "", False
    for line in text.splitlines():
        named = re.match(r"^  (\w+):$", line)
        stage = named[1] if named else stage
        if inside and not line.startswith("      - "):
            lines += [f"      - {path}" for path in dependencies.get(stage, [])]
        inside = line == "    deps:" or (inside and line.startswith("      - "))
        if not (inside and CODE_LINE.match(line)):
            lines.append(line)
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    root = Path.cwd()
    path = root / "dvc.yaml"
    text = path.read_text(encoding="utf-8")
    stages = yaml.safe_load(text)["stages"]
    wanted = with_code_deps(text, {name: closure(root, root / "stages" / f"{name}.py") for name in stages})
    if wanted == text:
        return 0
    if "--write" in arguments:
        path.write_text(wanted, encoding="utf-8")
        return 0
    print("dvc.yaml: the deps are not what the stages import; mend it with `python -m rlhf.runtime.closure --write`")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
