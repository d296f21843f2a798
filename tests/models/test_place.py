"""A model on the hub that cannot be had is one message at once; and no code that came with a model ever runs."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import PreTrainedTokenizerBase

from rlhf.config import Lora
from rlhf.errors import UserError
from rlhf.models.adapters import FOLDER, adapt, save_adapter
from rlhf.models.encoder import load_encoder
from rlhf.models.folder import check_folder, check_reward_model
from rlhf.models.place import weight_files
from rlhf.models.policy import load_policy, save_policy
from rlhf.models.reward import load_reward_model
from rlhf.models.storyteller import tell
from rlhf.models.tokens import load_tokenizer
from tests.models.tiny_models import engine_settings, make_policy

NAME, COMMIT = "maker/little", "0123456789abcdef0123456789abcdef01234567"
INDEX, WEIGHT = "model.safetensors.index.json", "lm_head.weight"
LOADING = """
import sys
import torch
from rlhf.config import Lora
from rlhf.errors import UserError
from rlhf.models.adapters import FOLDER, adapt, save_adapter
from rlhf.models.folder import check_hub
from rlhf.models.policy import load_policy
from rlhf.models.tokens import load_tokenizer
from tests.models.tiny_models import engine_settings
revision, *names = sys.argv[1:]
for name in names:
    for ask in (
        lambda: load_tokenizer(name, revision),
        lambda: load_policy(name, torch.device("cpu"), engine_settings(), revision),
        lambda: check_hub(name, revision, 0, 9),
    ):
        try:
            ask()
        except UserError as error:
            print(error)
"""
ANSWERS = {  # of a hub that gives nothing: status, code, and what is said of it
    "maker/none": (404, "RepoNotFound", f"maker/none at {COMMIT}: the hub has no such model, or keeps it private"),
    "maker/moved": (404, "RevisionNotFound", f"maker/moved at {COMMIT}: has no revision {COMMIT}: copy one from "),
    "maker/empty": (404, "EntryNotFound", f"maker/empty at {COMMIT}: holds no config.json"),
    "maker/gated": (
        403,
        "GatedRepo",
        f"maker/gated at {COMMIT}: its owner lets in only who has agreed to its terms: do so on ",
    ),
    "maker/broken": (503, "", f"maker/broken at {COMMIT}: is not in the cache ("),
}


class Hub(BaseHTTPRequestHandler):
    """Answers as `ANSWERS` has it, or from the server's folder of models."""

    def do_HEAD(self) -> None:
        if self.command == "HEAD":
            self.server.asked.append(self.path)  # type: ignore[attr-defined]
        name, file = "/".join(self.path.split("/")[1:3]), self.path.rpartition("/")[2]
        status, code, _ = ANSWERS.get(name, (404, "EntryNotFound", ""))
        held = self.server.models / name / file  # type: ignore[attr-defined]
        body = held.read_bytes() if name not in ANSWERS and held.is_file() else b""
        self.send_response(200 if body else status)
        headers = {"ETag": hashlib.sha1(body).hexdigest(), "X-Repo-Commit": COMMIT} if body else {"X-Error-Code": code}
        for header, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(header, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, *_arguments: object) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.models = [], tmp_path / "models"  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def said(endpoint: str, home: Path, *names: str) -> list[str]:
    """What the three ways to ask for a model end with, in a process of its own: the hub's address is read at import."""
    environment = os.environ | {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
    environment["TRANSFORMERS_OFFLINE"] = "0"
    command = [sys.executable, "-c", LOADING, COMMIT, *names]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=120)
    assert "Retrying" not in done.stderr
    return done.stdout.splitlines()


def test_a_hub_that_cannot_be_reached_is_one_message_at_once(folder: Path, tmp_path: Path) -> None:
    """Of a model that is not in the cache; nobody is asked about one that is."""
    snapshot = tmp_path / "hub" / "models--maker--cached" / "snapshots" / COMMIT
    snapshot.parent.mkdir(parents=True)
    folder.rename(snapshot)
    lines = said("http://127.0.0.1:9", tmp_path, NAME, "maker/cached")
    assert len(lines) == 3
    for line in lines:
        assert line.startswith(
            f"{NAME} at {COMMIT}: is not in the cache ({tmp_path}/hub), and the hub at http://127.0.0.1:9"
        )
        assert line.endswith(
            f"`hf download {NAME} --revision {COMMIT} --local-dir DIR`, bring DIR here, and set model.path=DIR"
        )


def test_a_hub_that_gives_nothing_is_asked_once_for_each_try(hub: ThreadingHTTPServer, tmp_path: Path) -> None:
    lines = said(f"http://127.0.0.1:{hub.server_port}", tmp_path, *ANSWERS)
    for line, (_, _, message) in zip(lines, [answer for answer in ANSWERS.values() for _ in range(3)], strict=True):
        assert line.startswith(message)
    assert hub.asked == [f"/{name}/resolve/{COMMIT}/config.json" for name in ANSWERS for _ in range(3)]  # type: ignore[attr-defined]


def test_a_model_on_the_hub_without_safetensors_is_refused_before_it_is_loaded(
    hub: ThreadingHTTPServer, folder: Path, tmp_path: Path
) -> None:
    for name, weights in {"whole": "model.safetensors", "pickle": "pytorch_model.bin"}.items():
        shutil.copytree(folder, tmp_path / "models" / "maker" / name)
        place = tmp_path / "models" / "maker" / name / "model.safetensors"
        place.rename(place.with_name(weights))
    guard, loading = said(f"http://127.0.0.1:{hub.server_port}", tmp_path, "maker/whole", "maker/pickle")[::-1]
    assert guard.startswith(f"maker/pickle at {COMMIT}: holds no model.safetensors: weights are read as safetensors only")
    assert loading.startswith(f"maker/pickle at {COMMIT}: no model can be loaded from it (")
    assert not any(path.endswith("pytorch_model.bin") for path in hub.asked)  # type: ignore[attr-defined]


def test_an_index_on_the_hub_or_in_its_cache_that_names_a_pickle_is_refused(
    hub: ThreadingHTTPServer, folder: Path, tmp_path: Path
) -> None:
    index_to(folder, "pytorch_model-1.bin")
    snapshot = tmp_path / "hub" / "models--maker--cached" / "snapshots" / COMMIT
    shutil.copytree(folder, snapshot)
    (tmp_path / "models" / "maker").mkdir(parents=True)
    folder.rename(tmp_path / "models" / "maker" / "shards")
    reached = said(f"http://127.0.0.1:{hub.server_port}", tmp_path, "maker/shards")
    for name, lines in {"shards": reached, "cached": said("http://127.0.0.1:9", tmp_path, "maker/cached")}.items():
        assert len(lines) == 2
        for line in lines:
            assert line.startswith(f"maker/{name} at {COMMIT}: {INDEX} says that {WEIGHT} is in pytorch_model-1.bin: ")
    assert not any(path.endswith(".bin") for path in hub.asked)  # type: ignore[attr-defined]


def index_to(folder: Path, file: str) -> None:
    """Moves the weights behind an index that names them thus: a pickle where it does not end as safetensors do."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    place = folder / file.replace("\\", "/")
    save_file(weights, place, {"format": "pt"}) if file.endswith(".safetensors") else torch.save(weights, place)
    index = {"metadata": {}, "weight_map": dict.fromkeys(sorted(weights), file)}
    (folder / INDEX).write_text(json.dumps(index), encoding="utf-8")


@pytest.fixture
def folder(tokenizer: PreTrainedTokenizerBase, tmp_path: Path) -> Path:
    save_policy(make_policy("llama", vocab_size=len(tokenizer)), tokenizer, tmp_path / "model", 9)
    return tmp_path / "model"


def refusals(folder: Path) -> list[str]:
    """Of all that reads a model, and of the guard."""
    messages = []
    for read in (
        lambda: load_policy(folder, torch.device("cpu"), engine_settings()),
        lambda: load_tokenizer(folder),
        lambda: load_reward_model(folder, torch.device("cpu"), engine_settings()),
        lambda: check_folder(folder, 0, 9),
    ):
        with pytest.raises(UserError) as caught:
            read()
        messages.append(str(caught.value))
    return messages


def change(file: Path, **values: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | values), encoding="utf-8")


def test_a_module_beside_the_weights_is_refused_and_not_run(folder: Path, tmp_path: Path) -> None:
    """It would leave a file."""
    trace = tmp_path / "ran"
    (folder / "modeling_theirs.py").write_text(f"open({str(trace)!r}, 'w').close()\n", encoding="utf-8")
    change(
        folder / "config.json",
        model_type="theirs",
        auto_map={"AutoConfig": "modeling_theirs.C", "AutoModelForCausalLM": "modeling_theirs.M"},
    )
    for message in refusals(folder):
        assert message.startswith(f"{folder}: brings code of its own (modeling_theirs.py), which is never run")
    (folder / "modeling_theirs.py").rename(folder / "modeling_theirs.txt")
    for message in refusals(folder):
        assert message.startswith(f"{folder}: config.json asks for code of its own (auto_map: ")
    assert not trace.exists()


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_code_that_lies_elsewhere_is_refused_too_though_transformers_knows_the_architecture(folder: Path, file: str) -> None:
    change(folder / file, auto_map={"AutoModelForCausalLM": "someone/else--modeling.M"})
    for message in refusals(folder):
        assert message.startswith(f"{folder}: {file} asks for code of its own (auto_map: ")
        assert "someone/else--modeling.M" in message


def test_an_adapter_beside_the_weights_is_refused_with_how_to_merge_it(folder: Path) -> None:
    """Until then the folder is a model like any other, also with an adapter in a folder of its own, as models made here."""
    model = load_policy(folder, torch.device("cpu"), engine_settings())
    adapt(model, Lora(rank=2, alpha=4.0, targets=[]), 0, str(folder))
    (folder / FOLDER).mkdir()
    save_adapter(model, folder / FOLDER)
    check_folder(folder, 0, 9)
    load_policy(folder, torch.device("cpu"), engine_settings())
    for file in (folder / FOLDER).iterdir():
        file.rename(folder / file.name)
    for message in refusals(folder):
        assert message.startswith(
            f"{folder}: is an adapter, or has one beside its weights (adapter_config.json): merge it first"
        )
    for name in ("config.json", "model.safetensors"):
        (folder / name).unlink()
    with pytest.raises(UserError, match="is an adapter, or has one beside its weights"):
        check_folder(folder, 0, 9)


@pytest.mark.parametrize(
    "file",
    ["pytorch_model-1.bin", "model-1.pt", "../model-1.safetensors", "..\\model-1.safetensors", "{tmp}/model-1.safetensors"],
)
def test_an_index_that_names_a_pickle_or_leaves_the_folder_is_refused_wherever_a_model_is_read(
    folder: Path, tmp_path: Path, file: str
) -> None:
    file = file.format(tmp=tmp_path)
    index_to(folder, file)
    for read in (
        lambda: load_policy(folder, torch.device("cpu"), engine_settings()),
        lambda: load_reward_model(folder, torch.device("cpu"), engine_settings()),
        lambda: load_encoder(folder, torch.device("cpu")),
        lambda: check_folder(folder, 0, 9),
        lambda: check_reward_model(folder),
        lambda: tell(folder, 1, 1.0, 4, 0),
        lambda: weight_files(folder),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(f"{folder}: {INDEX} says that {WEIGHT} is in {file}: weights are read as ")


@pytest.mark.parametrize("file", ["mine.safetensors.index.json", "mine.safetensors"])
def test_a_config_that_names_another_index_or_file_is_refused(folder: Path, file: str) -> None:
    shutil.copy(folder / "model.safetensors", folder / "kept")
    index_to(folder, "pytorch_model-1.bin")
    (folder / INDEX).rename(folder / "mine.safetensors.index.json")
    (folder / "kept").rename(folder / "model.safetensors")
    change(folder / "config.json", transformers_weights=file)
    said_so = f"{folder}: config.json says that the weights are in {file} (transformers_weights): they are read from "
    for read in (
        lambda: load_policy(folder, torch.device("cpu"), engine_settings()),
        lambda: check_reward_model(folder),
        lambda: tell(folder, 1, 1.0, 4, 0),
    ):
        with pytest.raises(UserError) as caught:
            read()
        assert str(caught.value).startswith(said_so)


def test_an_index_of_files_in_the_folder_is_read(folder: Path) -> None:
    expected = [weight.clone() for weight in load_policy(folder, torch.device("cpu"), engine_settings()).parameters()]
    index_to(folder, "part.safetensors")
    again = load_policy(folder, torch.device("cpu"), engine_settings())
    assert all(torch.equal(a, b) for a, b in zip(again.parameters(), expected, strict=True))
    assert weight_files(folder) == [folder / "part.safetensors"]
