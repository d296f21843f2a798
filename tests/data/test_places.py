"""Where data lie: a file, the files of a folder in order, a set on the hub; and one message for each that is none."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.places import files_of
from rlhf.errors import UserError
from tests.data.hub import COMMIT, serving
from tests.data.settings import settings

SET = "owner/some.set-1"
FILES = {
    "README.md": b"# A set",
    ".gitattributes": b"*.gz filter=lfs",
    "dataset_infos.json": b"{}",
    "data/train-0.jsonl": b'{"prompt": "a", "completion": "b"}\n',
    "data/train-1.jsonl.gz": b"",
    "data/test.parquet": b"",
    "other/train.csv": b"",
}
DATA = ["data/test.parquet", "data/train-0.jsonl", "data/train-1.jsonl.gz", "other/train.csv"]


def names_in(folder: Path, **given: Any) -> list[str]:
    return [path.relative_to(folder).as_posix() for path in files_of(settings("files", folder, **given))]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def complaint(path: Path | str, **given: Any) -> str:
    with pytest.raises(UserError) as caught:
        files_of(settings("files", path, **given))
    return str(caught.value)


def test_one_file_is_read_whatever_its_name(folder: Path) -> None:
    assert files_of(settings("files", folder / "README.md")) == [folder / "README.md"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [(None, DATA), ("*", DATA), ("data/train*", DATA[1:3]), ("*.csv", DATA[3:]), ("data/test.parquet", DATA[:1])],
)
def test_of_a_folder_the_files_named_as_data_in_the_order_of_their_names(
    folder: Path, pattern: str | None, names: list[str]
) -> None:
    assert names_in(folder, pattern=pattern) == names


def test_a_folder_without_such_files_is_named(folder: Path) -> None:
    assert complaint(folder, pattern="train*") == (f"{folder}: data.pattern (train*) fits no file among {', '.join(DATA)}")
    (folder / "empty").mkdir()
    assert complaint(folder / "empty") == (
        f"{folder / 'empty'}: there is no file named .jsonl, .ndjson, .json, .csv, .tsv, .parquet, with or without .gz"
    )


def test_names_are_known_in_any_case(tmp_path: Path) -> None:
    for name in ("a.jsonl", "B.JSONL", "c.Csv.GZ", "Dataset_Info.JSON"):
        (tmp_path / name).write_bytes(b"")
    assert names_in(tmp_path) == ["B.JSONL", "a.jsonl", "c.Csv.GZ"]
    assert names_in(tmp_path, pattern="*.JSONL") == ["B.JSONL"]


def test_data_that_are_packed_otherwise_are_named_unless_they_are_left_out(tmp_path: Path) -> None:
    for name in ("a.jsonl", "c.jsonl.zst", "d.JSON.bz2", "model.zip", "notes.txt.xz"):
        (tmp_path / name).write_bytes(b"")
    assert complaint(tmp_path) == (
        f"{tmp_path}: c.jsonl.zst, d.JSON.bz2: named as data, but packed in a way that is not read: unpack them, pack them "
        "by gzip, or leave them out with data.pattern"
    )
    assert "c.jsonl.zst: named as data" in complaint(tmp_path, pattern="c*")
    assert names_in(tmp_path, pattern="*.jsonl") == ["a.jsonl"]


def test_a_pattern_is_not_for_a_file(folder: Path) -> None:
    assert complaint(folder / "other/train.csv", pattern="*.csv") == (
        "data.pattern (*.csv) chooses among the files of a folder or of a set on the hub, but data.path "
        f"({folder / 'other/train.csv'}) is a file: set it to null"
    )


@pytest.mark.parametrize(
    ("path", "given", "message"),
    [
        ("mine.jsonl", {}, "data.path (mine.jsonl): there is neither a file nor a folder of this name"),
        (
            "owner/name",
            {},
            "data.path (owner/name): there is neither a file nor a folder of this name; for the set owner/name on the "
            "Hugging Face hub, set data.revision to a commit in full",
        ),
        (
            "a/b/c.jsonl",
            {"revision": COMMIT},
            f"data.path (a/b/c.jsonl): there is neither a file nor a folder of this name, and with data.revision ({COMMIT}) "
            "it must be the id of a set on the Hugging Face hub, OWNER/NAME",
        ),
        (
            "docs",
            {"revision": COMMIT},
            f"data.revision ({COMMIT}) is for a set on the Hugging Face hub, but docs lies here: set it to null",
        ),
    ],
)
def test_a_path_that_is_nothing_is_named(path: str, given: dict[str, str], message: str) -> None:
    assert complaint(path, **given) == message


PROGRAM = """
import json, sys, time
time.sleep = lambda seconds: None  # the library waits half a minute before it gives up
from rlhf.data.places import files_of
from rlhf.errors import UserError
from tests.data.settings import settings
path, given = sys.argv[1], json.loads(sys.argv[2])
try:
    files = files_of(settings("files", path, **given))
    print(json.dumps([[file.as_posix().partition("/snapshots/")[2], file.read_bytes().decode()] for file in files]))
except UserError as error:
    print(json.dumps(str(error)))
"""

Ask = Callable[..., Any]


def reaching(address: str, home: Path, offline: str = "0") -> dict[str, str]:
    """An environment with a server of ours for the hub and a cache of its own, whatever this process was told of either."""
    kept = {name: value for name, value in os.environ.items() if not name.upper().startswith(("HF_", "HTTP", "ALL_PROXY"))}
    return kept | {
        "HF_ENDPOINT": address,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": offline,
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_ETAG_TIMEOUT": "60",  # of a machine that is busy
        "HF_HUB_DOWNLOAD_TIMEOUT": "60",
    }


@pytest.fixture
def ask(tmp_path: Path) -> Ask:
    """What a process says of a set."""

    def asked(address: str, path: str = SET, offline: str = "0", **given: Any) -> Any:
        command = [sys.executable, "-c", PROGRAM, path, json.dumps({"revision": COMMIT} | given)]
        environment = reaching(address, tmp_path / "hf", offline)
        root = Path(__file__).parents[2]
        done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)
        return json.loads(done.stdout)

    return asked


def test_a_set_comes_from_the_hub_once_and_then_from_the_cache(ask: Ask) -> None:
    with serving(SET, FILES) as (address, asked):
        found = ask(address)
        assert found == [[f"{COMMIT}/{name}", FILES[name].decode()] for name in DATA]
        fetched = {path.rpartition(f"{COMMIT}/")[2] for path in asked if "/resolve/" in path}
        assert fetched == set(DATA)
        seen = len(asked)
        assert ask(address) == found
        assert len(asked) == seen, "a commit does not move"
    assert ask(address) == found, "the server is gone"
    assert ask(address, offline="1") == found


def test_only_the_files_that_fit_are_fetched(ask: Ask) -> None:
    with serving(SET, FILES) as (address, asked):
        assert [name for name, _ in ask(address, pattern="data/train*")] == [f"{COMMIT}/{name}" for name in DATA[1:3]]
        assert not [path for path in asked if path.endswith(("csv", "parquet"))]
        assert ask(address, pattern="train*").startswith(f"{SET}: data.pattern (train*) fits no file")


def test_of_a_set_as_of_a_folder_names_are_known_in_any_case_and_other_packing_is_named(ask: Ask) -> None:
    files = {"a.jsonl": b"1", "B.JSONL": b"2", "estate.json": b"3", "x/state.json": b"4"}
    with serving(SET, files) as (address, _):
        assert [name for name, _ in ask(address)] == [f"{COMMIT}/{name}" for name in ("B.JSONL", "a.jsonl", "estate.json")]
    with serving("owner/packed", files | {"c.jsonl.zst": b"5"}) as (address, _):
        assert ask(address, "owner/packed").startswith("owner/packed: c.jsonl.zst: named as data, but packed in a way that")


def test_a_part_of_a_set_in_the_cache_is_not_taken_for_the_whole(ask: Ask) -> None:
    with serving(SET, FILES) as (address, _):
        ask(address, pattern="data/train*")
    assert "cannot be reached" in ask(address)


ONE_FILE = """
import sys
from huggingface_hub import hf_hub_download
hf_hub_download(*sys.argv[1:3], repo_type="dataset", revision=sys.argv[3])
"""


def test_files_fetched_one_by_one_are_not_taken_for_the_set(ask: Ask, tmp_path: Path) -> None:
    with serving(SET, FILES) as (address, _):
        for name in DATA[:2]:
            command = [sys.executable, "-c", ONE_FILE, SET, name, COMMIT]
            environment = reaching(address, tmp_path / "hf")
            done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
    for offline in "01":
        said = ask(address, offline=offline)
        assert said.startswith(f"data.path ({SET}) at data.revision ({COMMIT}): {address} does not say which files it has")
        assert said.endswith("set data.path=DIR data.revision=null")
    assert "which files it has" in ask(address, pattern=DATA[0]), "nobody knows what else the pattern fits"
    with serving(SET, FILES) as (again, _):
        assert [name for name, _ in ask(again)] == [f"{COMMIT}/{name}" for name in DATA]
    assert len(ask(address, offline="1")) == len(DATA)


def test_what_the_hub_refuses_is_said_in_one_message(ask: Ask) -> None:
    about = f"data.path ({SET}) at data.revision ({COMMIT}): "
    with serving("owner/another", FILES) as (address, _):
        page = f"{address}/datasets/{SET}"
        assert (
            ask(address) == f"{about}the hub has no such set of data, or keeps it private: look at {page}, or set HF_TOKEN"
        )
    with serving(SET, FILES, gated=True) as (address, _):
        said = ask(address)
        assert said.startswith(
            f"{about}its owner lets in only who has agreed to its terms: do so on {address}/datasets/{SET}"
        )
    with serving(SET, FILES) as (address, _):
        other = COMMIT[::-1]
        assert ask(address, revision=other) == (
            f"data.path ({SET}) at data.revision ({other}): has no revision {other}: copy one from "
            f"{address}/datasets/{SET}/commits/main"
        )
    said = ask(address)
    assert said.startswith(f"{about}is not in the cache (")
    assert f"the hub at {address} cannot be reached (" in said
    assert "[Errno 111] Connection refused" in said
    assert said.endswith(
        f"run `hf download {SET} --repo-type dataset --revision {COMMIT} --local-dir DIR`, bring DIR here, and set "
        "data.path=DIR data.revision=null"
    )
    assert "is not in the cache (" in ask(address, offline="1")
