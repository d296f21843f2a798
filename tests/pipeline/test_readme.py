"""What README.md, README.zh.md and docs/{data,labelers,sweeps}.md tell a reader to type works, and what they name is there.

A cheap command is run. A training is composed and parsed as it would be; it runs elsewhere in these tests.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from dvc.cli import parse_args

from rlhf.config import Config
from rlhf.runtime import settings
from rlhf.runtime.messages import known_settings
from tests.pipeline.clone import ROOT, Clone

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
LINK = re.compile(r"\]\((?!\w+:|#)([^)#]+)[^)]*\)")
PROGRAMS = ("cat", "dvc", "make", "mlflow", "python", "source")
SHELLS = ("bash", "console", "sh", "shell")
CHEAP = (("metrics",), ("plots",), ("exp", "show"), ("repro",), ("status",))
SUFFIXES = (".csv", ".json", ".lock", ".md", ".py", ".toml", ".yaml")
MADE_BY_SETUP = ".venv"
README, CHINESE = READMES = [(ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "README.zh.md")]
PAGES = ("data.md", "labelers.md", "sweeps.md")
TEXTS = "".join([*READMES, *((ROOT / "docs" / name).read_text(encoding="utf-8") for name in PAGES)])
TO_BE_MADE = "TIME"  # stands for the folder of a sweep


def blocks(*languages: str) -> list[str]:
    return [text for language, text in FENCE.findall(TEXTS) if language in languages]


def commands() -> list[str]:
    """The commands of fenced shell blocks, of indented lines and of the text, without their comments."""
    fenced = [line for block in blocks(*SHELLS) for line in block.replace("\\\n", " ").splitlines()]
    prompted = [line for block in blocks("console") for line in block.splitlines()]
    output = {line for line in prompted if not line.startswith("$ ")}
    prose = FENCE.sub("", TEXTS).replace("\\\n", " ")
    inline = [
        f"dvc exp run {text}" if text.startswith("-S ") else text.removesuffix(" -S") for text in INLINE.findall(prose)
    ]
    indented = [line for line in prose.splitlines() if line.startswith("    ")]
    told = [text for text in [*indented, *inline] if re.match(rf" *({'|'.join(PROGRAMS)}) ", text)]
    lines = [line.strip().removeprefix("$ ") for line in fenced if line not in output] + told
    found = [shlex.join(shlex.split(line, comments=True)) for line in lines]
    return list(dict.fromkeys(command for command in found if command))


@pytest.mark.parametrize("command", commands())
def test_a_command_works(shared: Clone, command: str) -> None:
    words = shlex.split(command)
    match words:
        case ["make", *targets]:
            shared.run("make", "--dry-run", *targets)
        case ["dvc", *arguments]:
            check_dvc(shared, arguments)
        case ["python", "-m", module, *_]:
            shared.run("python", "-m", module, "--help")
        case ["python", "stages/config.py", "--keep", _, "--of", folder] if TO_BE_MADE in folder:
            assert "--of DIR" in shared.run("python", "stages/config.py", "--help").stdout
        case ["python", script, *arguments]:
            assert (shared.root / script).is_file()
            if script == "stages/config.py" or "--help" in arguments:
                shared.run(*words)
                shared.git("checkout", "--quiet", ".")
            else:
                check_overrides(shared, [text for text in arguments if not text.startswith("-")])
        case ["mlflow", verb, *arguments]:
            options = [text for text in arguments if text.startswith("--")]
            assert all(option in shared.run("mlflow", verb, "--help").stdout for option in options)
        case ["cat", *files]:
            assert shared.run("cat", *files).stdout
        case ["source", file]:
            assert file.startswith(MADE_BY_SETUP)
        case _:
            pytest.fail(f"a new kind of command: say here what makes it right: {command}")


def check_dvc(clone: Clone, arguments: list[str]) -> None:
    """DVC's own parser takes it; the settings of an experiment compose and are fit for use."""
    parsed = parse_args(arguments)
    if tuple(arguments[:2]) == ("exp", "run"):
        check_overrides(clone, parsed.set_param)
        for target in parsed.targets:
            assert (clone.root / "stages" / f"{target}.py").is_file()
    elif any(tuple(arguments[: len(start)]) == start for start in CHEAP):
        clone.dvc(*arguments)


def check_overrides(clone: Clone, overrides: list[str]) -> None:
    """Every value of a sweep by itself; FILE, DIR and COMMIT stand for what a user has."""
    overrides = [text.replace("=COMMIT", "=" + "a" * 40) for text in overrides if text != "experiment=careful"]
    lists = [re.fullmatch(r"([\w.]+)=([^\[{'\"]*,.*)", text) for text in overrides]
    fixed = [text for text, sweep in zip(overrides, lists, strict=True) if not sweep]
    swept = [f"{sweep[1]}={value}" for sweep in lists if sweep for value in sweep[2].split(",")]
    for one in swept or [None]:
        settings.validate(settings.values_of(settings.compose(clone.root, [*fixed, *([one] if one else [])])))


@pytest.mark.parametrize("block", blocks("python"))
def test_a_piece_of_python_runs_and_prints(shared: Clone, block: str) -> None:
    assert shared.run("python", "-c", block, HF_HUB_OFFLINE="1").stdout.strip()


def named_paths() -> list[str]:
    """Links, and what stands between backticks and looks like a file or folder of the repository."""
    text = "".join(READMES)
    words = [word for word in INLINE.findall(FENCE.sub("", text)) if re.fullmatch(r"[\w.-]+(/[\w.-]*)*", word)]
    paths = [word for word in words if "/" in word or word.endswith(SUFFIXES)]
    return sorted({*paths, *LINK.findall(text)})


@pytest.mark.parametrize("path", named_paths())
def test_a_file_or_folder_exists_at_the_root_or_among_the_outputs_of_a_stage(shared: Clone, path: str) -> None:
    there = [shared.root / path, *(stage / path for stage in shared.artifact().iterdir())]
    assert path.startswith(MADE_BY_SETUP) or any(place.exists() for place in there)


def tree() -> list[str]:
    """The paths of the block that draws the repository: a line's indentation says whose child it is."""
    (drawing,) = [text for language, text in FENCE.findall(README) if not language and "\nstages/" in text]
    above, found = "", []
    for line in drawing.splitlines():
        name = line.split()[0]
        above = above if line.startswith(" ") else name
        found.append(above + name if line.startswith(" ") else name)
    return found


@pytest.mark.parametrize("path", tree())
def test_what_the_tree_draws_is_there(shared: Clone, path: str) -> None:
    assert (shared.root / path).exists()
    assert (shared.root / path).is_dir() == path.endswith("/")


def test_the_tree_draws_every_package_and_every_folder(shared: Clone) -> None:
    tracked = [Path(name) for name in shared.git("ls-files").splitlines()]
    folders = {f"{path.parts[0]}/" for path in tracked if len(path.parts) > 1 and not path.parts[0].startswith(".")}
    packages = {"/".join(path.parts[:3]) + "/" for path in tracked if path.parts[0] == "src" and len(path.parts) > 3}
    assert (folders - {"src/"}) | packages <= set(tree())


def test_every_setting_that_is_named_exists() -> None:
    words = [word for word in INLINE.findall(FENCE.sub("", TEXTS)) if re.fullmatch(r"[a-z_]+(\.[a-z_]+)+", word)]
    named = [word for word in words if word.partition(".")[0] in Config.model_fields and not word.endswith(SUFFIXES)]
    assert named
    assert set(named) <= set(known_settings())


def without_comments(language: str, text: str) -> list[str]:
    """A block's lines, without what a translation changes: comments, and what the drawing of the repository says."""
    if language in SHELLS:
        return [shlex.join(shlex.split(line, comments=True)) for line in text.splitlines()]
    return text.splitlines() if language else [re.match(r"\s*\S*", line)[0] for line in text.splitlines()]  # type: ignore[index]


def test_the_readme_says_the_same_in_both_languages() -> None:
    """As far as it can be told without reading: headings, code, results, links, names and fractions."""
    english, chinese = ([(lang, without_comments(lang, text)) for lang, text in FENCE.findall(readme)] for readme in READMES)
    assert chinese == english
    plain = [FENCE.sub("", readme) for readme in READMES]
    assert LINK.findall(plain[0])[1:] == LINK.findall(plain[1])[1:], "but for the first, to the other language"
    assert (LINK.findall(README)[0], LINK.findall(CHINESE)[0]) == ("README.zh.md", "README.md")
    for told in (r"^#+ ", r"^\|.*\|$", r"!\[", r"(?<!`)`[^`\n]+`(?!`)", r"-?\d*\.\d+"):
        found = [re.findall(told, text, re.MULTILINE) for text in plain]
        assert sorted(found[0]) == sorted(found[1]), told
