"""The process that talks to MLflow: reads messages, one JSON object a line, from its standard input and passes them on.

    python -m rlhf.runtime.tracking.writer

One run follows another, until the input ends; a run whose stage was killed is then marked as KILLED. A run that cannot be
opened ends it, too. What fails later costs itself (a metric: its batch) and, the first time in a run, a warning.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import json
import logging
import os
import selectors
import signal
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.runtime.hashes import md5_of
from rlhf.runtime.tracking import protocol  # in `case`, where a name without a dot would match anything
from rlhf.runtime.tracking.inputs import provenance
from rlhf.runtime.tracking.protocol import CLOSE, CLOSED, OPENED, READY, REMOTE_PATIENCE, WARM, WARNED, Message, warn

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

SECONDS_BETWEEN_SENDS = 3.0
METRICS_A_BATCH = 1000  # MLflow's limits
PARAMS_A_BATCH = 100
PARAM_LENGTH = 6000
TAG_LENGTH = 8000

STAGE = 1  # the pipe that leads back to it
FLUSH: Message = {"kind": "flush"}
KILLED: Message = {"kind": CLOSE, "status": "KILLED"}


class Writer:
    """An open MLflow run, and the metrics that still wait to be sent."""

    def __init__(self, opening: Message) -> None:
        self.uri, self.warned = opening["uri"], False
        self.client = connect(self.uri)
        say(READY)
        self.root = Path(opening["root"])
        run = self.reopened(opening["run_id"]) or self.create_run(opening)
        self.run_id, self.experiment = str(run.info.run_id), str(run.info.experiment_id)
        self.experiment_now = opening["experiment"]  # a run that goes on stays in that in which it was begun
        self.told = set(run.data.params)  # before, which MLflow does not let change
        say(f"{OPENED}{self.run_id}")
        self.copy_models = opening["settings"]["tracking.copy_models"] == "True"
        self.waiting: list[Metric] = []
        self.sent = time.monotonic()

    def create_run(self, opening: Message) -> Run:
        from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID

        tags = {MLFLOW_PARENT_RUN_ID: opening["parent"]} if opening["parent"] else {}
        experiment = find_experiment(self.client, opening["experiment"])
        return self.client.create_run(experiment, opening["time"], tags, opening["name"])

    def reopened(self, run_id: str | None) -> Run | None:
        """A run that goes on, as running again; None where there is none, or none any more."""
        from mlflow import MlflowException

        if run_id is None:
            return None
        try:
            self.client.update_run(run_id, status="RUNNING")
        except MlflowException:
            return None
        return self.client.get_run(run_id)

    def take(self, message: Message) -> None:
        """Does what a message says. Whatever fails, the stage goes on, and so do the other messages."""
        try:
            match message["kind"]:
                case protocol.OPEN:
                    self.params(message["settings"])
                case "origin":
                    origin = provenance(self.root, message["stage"], message["settings"])
                    self.tags({"tags": {"stage": message["stage"]} | origin})
                case protocol.TAGS:
                    self.tags(message)
                case protocol.METRICS:
                    self.metrics(message)
                case protocol.FILE:
                    self.client.log_artifact(self.run_id, str(self.root / message["path"]))
                case protocol.MODEL:
                    self.model(message)
                case protocol.CHILDREN:
                    self.close_children(message)
                case "flush":
                    self.flush()
                case protocol.CLOSE:
                    self.client.set_terminated(self.run_id, message["status"], message.get("time"))
                case unknown:
                    raise ValueError(f"a message of no kind that there is: {unknown}")
        except Exception as error:
            if not self.warned:
                self.warned = True
                warn(self.uri, reason(error), opened=True)
                say(WARNED)

    def params(self, settings: dict[str, str]) -> None:
        from mlflow.entities import Param

        params = [Param(key, value[:PARAM_LENGTH]) for key, value in settings.items() if key not in self.told]
        for first in range(0, len(params), PARAMS_A_BATCH):
            self.client.log_batch(self.run_id, params=params[first : first + PARAMS_A_BATCH])

    def tags(self, message: Message) -> None:
        from mlflow.entities import RunTag

        tags = [RunTag(_key(key), value[:TAG_LENGTH]) for key, value in message["tags"].items()]
        for first in range(0, len(tags), PARAMS_A_BATCH):
            self.client.log_batch(self.run_id, tags=tags[first : first + PARAMS_A_BATCH])

    def metrics(self, message: Message, model_id: str | None = None) -> None:
        from mlflow.entities import Metric

        at = (message.get("time") or int(time.time() * 1000), message["step"])
        self.waiting += [Metric(_key(key), value, *at, model_id=model_id) for key, value in message["metrics"].items()]
        if len(self.waiting) >= METRICS_A_BATCH or time.monotonic() - self.sent > SECONDS_BETWEEN_SENDS:
            self.flush()

    def flush(self) -> None:
        """Sends what waits, once: what MLflow refused it would refuse again, with all that came after it."""
        metrics, self.waiting, self.sent = self.waiting, [], time.monotonic()
        for first in range(0, len(metrics), METRICS_A_BATCH):
            self.client.log_batch(self.run_id, metrics=metrics[first : first + METRICS_A_BATCH])

    def model(self, message: Message) -> None:
        """A logged model of MLflow 3, tied to this run at a step; its bytes are elsewhere, unless a copy is wanted."""
        import mlflow
        from mlflow.entities import LoggedModelOutput

        place = self.root / message["path"]
        about = {
            "name": message["name"],
            "source_run_id": self.run_id,
            "experiment_id": self.experiment,
            "tags": {"step": str(message["step"]), "path": message["path"], "md5": md5_of(place)},
        }
        if self.copy_models:
            model = mlflow.initialize_logged_model(**about)
            self.client.log_model_artifacts(model.model_id, str(place))
            self.client.finalize_logged_model(model.model_id, "READY")
        else:
            model = mlflow.create_external_model(**about)
        self.client.log_outputs(self.run_id, [LoggedModelOutput(model.model_id, message["step"])])
        self.metrics(message, model.model_id)

    def close_children(self, message: Message) -> None:
        theirs = f"tags.`mlflow.parentRunId` = '{self.run_id}' and attributes.status = 'RUNNING'"
        here = find_experiment(self.client, self.experiment_now)
        for run in self.client.search_runs([self.experiment, here], theirs):
            self.client.set_terminated(run.info.run_id, "KILLED", message["time"])


def connect(uri: str) -> MlflowClient:
    """A client that neither retries nor waits for long. A local database is made by one process at a time."""
    if uri.startswith("http"):
        knock(uri)
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
    os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] = str(int(REMOTE_PATIENCE) - 1)
    import mlflow

    logging.getLogger("mlflow").setLevel(logging.ERROR)
    logging.getLogger("alembic").setLevel(logging.ERROR)
    mlflow.set_tracking_uri(uri)
    if not uri.startswith("sqlite:///"):
        return mlflow.MlflowClient(uri)
    with open(f"{uri.removeprefix('sqlite:///')}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        client = mlflow.MlflowClient(uri)
        client.search_experiments(max_results=1)  # makes the tables
        return client


def knock(uri: str) -> None:
    """A dead server is found out before MLflow, which takes a second to import, is. Any answer is a sign of life."""
    address = urllib.parse.urlsplit(uri)
    bare = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()  # urllib takes a password for a host
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(bare, timeout=REMOTE_PATIENCE - 1):
        pass


def find_experiment(client: MlflowClient, name: str) -> str:
    """The experiment's id; it is made where there is none, even if another process does so at the same moment."""
    from mlflow import MlflowException

    if not client.get_experiment_by_name(name):
        with contextlib.suppress(MlflowException):
            return str(client.create_experiment(name))
    found = client.get_experiment_by_name(name)
    if found is None:
        raise MlflowException(f"experiment {name} cannot be made")
    return str(found.experiment_id)


def messages(descriptor: int) -> Iterator[Message | None]:
    """The messages of a pipe as they come; None now and then when none does, so that what waits can be sent."""
    selector, text = selectors.DefaultSelector(), b""
    selector.register(descriptor, selectors.EVENT_READ)
    while True:
        if not selector.select(SECONDS_BETWEEN_SENDS):
            yield None
            continue
        read = os.read(descriptor, 1 << 16)
        if not read:
            return
        *lines, text = (text + read).split(b"\n")
        yield from map(json.loads, lines)


def serve(descriptor: int) -> None:
    """Writes the runs that the messages of this pipe tell of, until it ends or one of them cannot be opened."""
    stream = messages(descriptor)
    for message in stream:
        if message and message["kind"] == WARM:
            with contextlib.suppress(Exception):  # who opens a run will hear of it
                import mlflow  # noqa: F401
        elif message and not write_run(message, stream):
            return


def write_run(opening: Message, stream: Iterator[Message | None]) -> bool:
    """Opens a run, does what the messages say, and closes it when they say so or end; whether there may be another."""
    try:
        writer, last = Writer(opening), KILLED
    except Exception as error:  # whatever it is, the stage goes on
        warn(opening["uri"], reason(error))
        return False
    with ThreadPoolExecutor(1) as worker:
        for message in (opening, opening | {"kind": "origin"}):
            worker.submit(writer.take, message)
        for said in stream:
            if said and said["kind"] == CLOSE:
                last = said
                break
            worker.submit(writer.take, said or FLUSH)
        worker.submit(writer.take, FLUSH)
        # Beside what is still under way: the upload of a file, say, can take longer than the stage waits.
        writer.take(last)
    say(CLOSED)
    return last is not KILLED


def say(line: str) -> None:
    """To the stage, if it lives."""
    with contextlib.suppress(BrokenPipeError):
        os.write(STAGE, line.encode() + b"\n")


def reason(error: Exception) -> str:
    """One line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _key(name: str) -> str:
    """A name as MLflow takes it: letters, digits and _ - . space : /"""
    return "".join(letter if letter.isalnum() or letter in "_-. :/" else "_" for letter in name)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # meant for the stage, whose end is still to be told
    sys.stdout = sys.stderr  # whatever a library prints is no word of the writer's
    serve(sys.stdin.fileno())
    gc.freeze()  # the interpreter would look for garbage in all that MLflow has imported, while others need the core
