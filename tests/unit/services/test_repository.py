"""The repository's index, and that it cannot be changed."""

from __future__ import annotations

from typing import Any

import pytest

from infer.errors import FailedPrecondition, Unavailable
from infer.proto import message
from infer.services.repository import repository_rpcs
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeVersion

SERVER = FakeServer(FakeRoutes(
    {"m": [FakeVersion(b"m", "2"), FakeVersion(b"m", "10")], "bad": [], "late": []},
    {"bad": FailedPrecondition("model 'bad' could not be loaded: no"), "late": Unavailable("model 'late' is loading")}))


async def index(**fields: Any) -> list[tuple[str, str, str, str]]:
    request = message("inference.RepositoryIndexRequest")(**fields).SerializeToString()
    reply = await repository_rpcs(SERVER)["RepositoryIndex"](FakeCall("/r", request))
    models = message("inference.RepositoryIndexResponse").FromString(reply).models
    return [(model.name, model.version, model.state, model.reason) for model in models]


async def test_index() -> None:
    ready = [("m", "2", "READY", ""), ("m", "10", "READY", "")]
    assert await index() == [("bad", "", "UNAVAILABLE", "model 'bad' could not be loaded: no"),
                             ("late", "", "LOADING", "model 'late' is loading"), *ready]
    assert await index(ready=True) == ready
    assert await index(repository_name="another") == []


@pytest.mark.parametrize("method", ["RepositoryModelLoad", "RepositoryModelUnload"])
async def test_wire_4_4_load_when_it_is_not_enabled(method: str) -> None:
    request = message(f"inference.{method}Request")(model_name="m").SerializeToString()
    with pytest.raises(FailedPrecondition, match="model control is not enabled"):
        await repository_rpcs(SERVER)[method](FakeCall("/r", request))
