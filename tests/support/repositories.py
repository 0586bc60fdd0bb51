"""A real server over a repository that changes: what it answers, by version, and waits that end at a condition."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from infer.client import InferClient, InferError, RetryPolicy
from infer.proto import message
from tests.support import models
from tests.support.server import InProcess, in_process

PATH = "/inference.GRPCInferenceService"
# Looks follow each other closely, and a copy that pauses that long counts as whole.
QUICK = {"repository_poll_interval": 0.05, "repository_settle_time": 0.05}


def place_version(repository: Path, name: str, version: int, factor: float | None = None) -> Path:
    """A version that answers `factor`, by default its number, times its input; there all at once."""
    staged = models.write_model(repository / name / f".staged-{version}" / "model.onnx",
                                models.scale(float(version) if factor is None else factor))
    final = repository / name / str(version)
    if not final.exists():
        return staged.parent.rename(final)
    # Never without files: a look at that moment would take the version for gone.
    staged.replace(final / staged.name)
    staged.parent.rmdir()
    return final


def break_version(repository: Path, name: str, version: int) -> Path:
    """A version that is whole and that the runtime refuses."""
    staged = models.write_model(repository / name / f".staged-{version}" / "model.onnx", models.unknown_operator())
    return staged.parent.rename(repository / name / str(version))


class Caller:
    """A client of one attempt a call."""

    def __init__(self, address: str) -> None:
        self.client = InferClient(address, timeout=30.0, retry=RetryPolicy(attempts=1))

    def answer(self, model: str, version: str = "") -> tuple[str, float]:
        """The version that answers, and by how much it multiplies."""
        reply = self.client.infer(model, {"x": np.ones((1, 4), np.float32)}, version=version)
        return reply.model_version, float(reply["y"].flat[0])

    def status(self, model: str, version: str = "") -> tuple[str, str]:
        try:
            self.answer(model, version)
        except InferError as error:
            return error.status, error.message
        return "OK", ""

    def index(self) -> dict[tuple[str, str], str]:
        """State by model and version."""
        return {(each.name, each.version): each.state for each in self.client.models()}

    def config(self, model: str, version: str = "") -> Any:
        request = message("inference.ModelConfigRequest")(name=model, version=version)
        reply = message("inference.ModelConfigResponse")
        return reply.FromString(self.client.call(f"{PATH}/ModelConfig", request.SerializeToString())).config


class Repository:
    """A server, its repository and a client."""

    def __init__(self, served: InProcess, root: Path, caller: Caller) -> None:
        self.served, self.root, self.caller = served, root, caller
        self.answer, self.status, self.client = caller.answer, caller.status, caller.client

    def until(self, condition: Callable[[], bool]) -> None:
        """Turns the server's loop until the condition, read by the test's own thread, holds."""
        self.served.until_here(condition)

    def until_answer(self, expected: tuple[str, float], model: str = "m", version: str = "") -> None:
        self.until(lambda: self.status(model, version)[0] == "OK" and self.answer(model, version) == expected)

    def until_state(self, expected: str | None, version: str, model: str = "m") -> None:
        """None: it is not known any more."""
        self.until(lambda: self.caller.index().get((model, version)) == expected)

    def settled(self) -> bool:
        """Whether no version is still waited for, to be whole or to be loaded. Read on the loop."""
        models = self.served.server.models
        return not models.manager.pending and models.watcher.last is not None and all(
            files.whole or files.fault for model in models.watcher.last.models.values()
            for files in model.versions.values())

    def looked(self, times: int = 2) -> None:
        """Once the repository was looked at so often."""
        before = self.served.look(lambda: self.served.server.models.watcher.looks)
        self.until(lambda: self.served.server.models.watcher.looks >= before + times)


@contextlib.contextmanager
def repository_server(root: Path, **settings: Any) -> Iterator[Repository]:
    with in_process(root, **QUICK | settings) as served:
        caller = Caller(served.address)
        try:
            repository = Repository(served, root, caller)
            # The first look takes what was just written for whole only if nothing beside it is older.
            served.until(repository.settled)
            yield repository
        finally:
            caller.client.close()


@contextlib.contextmanager
def calling(address: str, model: str = "m", version: str = "") -> Iterator[list[tuple[str, float]]]:
    """Calls a model without a pause from a thread of its own; the answers so far, of which each was OK."""
    answers: list[tuple[str, float]] = []
    failures: list[BaseException] = []
    stop = threading.Event()

    def work() -> None:
        caller = Caller(address)
        try:
            while not stop.is_set():
                answers.append(caller.answer(model, version))
        except BaseException as error:
            failures.append(error)
        finally:
            caller.client.close()

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield answers
    finally:
        stop.set()
        thread.join(60.0)
    assert not failures, (failures, answers[-3:])
    assert answers


def config_json(**fields: Any) -> str:
    """A ModelConfig as RepositoryModelLoad takes it."""
    return json.dumps(fields)
