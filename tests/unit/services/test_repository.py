"""The repository's index; loads, unloads and label moves in explicit mode, and that they are refused in any other."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from infer.errors import FailedPrecondition, InferError, InvalidArgument, NotFound, ResourceExhausted, Unavailable
from infer.proto import message
from infer.services.control import IndexRow, Overrides
from infer.services.inference import inference_service
from infer.services.metadata import metadata_rpcs
from infer.services.overrides import CONFIG_CHARACTERS, OverrideFiles
from infer.services.repository import repository_rpcs
from tests.support.cold_server import FakeCall, FakeRoutes, FakeServer, FakeVersion
from tests.support.turns import turn

FIXED = FakeServer(FakeRoutes(
    {"m": [FakeVersion(b"m", "2"), FakeVersion(b"m", "10")], "bad": [], "late": []},
    {"bad": FailedPrecondition("model 'bad' could not be loaded: no"), "late": Unavailable("model 'late' is loading")}))


class FakeControl:
    """A ModelControl that does what the test says, and writes down what it was asked."""

    def __init__(self, mode: str = "explicit") -> None:
        self.mode = mode
        self.asked: list[tuple[Any, ...]] = []
        self.seen_files: list[dict[str, bytes]] = []
        self.error: InferError | None = None
        self.gates: dict[str, asyncio.Event] = {}
        self.rows: list[IndexRow] = []

    async def _do(self, *asked: Any) -> None:
        self.asked.append(("begin", *asked))
        if asked[1] in self.gates:
            await self.gates[asked[1]].wait()
        if self.error is not None:
            raise self.error
        self.asked.append(("end", *asked))

    async def load(self, name: str, overrides: Overrides | None, who: str) -> None:
        if overrides is not None and overrides.directory is not None:
            self.seen_files.append(contents(overrides.directory))
        await self._do("load", name, overrides, who)

    async def unload(self, name: str, dependents: bool, who: str) -> None:
        await self._do("unload", name, dependents, who)

    async def label(self, name: str, label: str, version: int, who: str) -> None:
        await self._do("label", name, label, version, who)

    def index(self) -> list[IndexRow]:
        return self.rows


def contents(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def server(control: FakeControl) -> FakeServer:
    return FakeServer(control=control)


async def index(server: FakeServer, **fields: Any) -> list[tuple[str, str, str, str]]:
    request = message("inference.RepositoryIndexRequest")(**fields).SerializeToString()
    reply = await repository_rpcs(server)["RepositoryIndex"](FakeCall("/r", request))
    models = message("inference.RepositoryIndexResponse").FromString(reply).models
    return [(model.name, model.version, model.state, model.reason) for model in models]


async def ask(server: FakeServer, verb: str, model: str, repository: str = "", **parameters: Any) -> bytes:
    return await ask_with(server, verb, model, parameters, repository)


async def ask_with(server: FakeServer, verb: str, model: str, parameters: dict[str, Any],
                   repository: str = "") -> bytes:
    request = message(f"inference.RepositoryModel{verb}Request")(model_name=model, repository_name=repository)
    kinds = {bool: "bool_param", int: "int64_param", str: "string_param", bytes: "bytes_param"}
    for key, value in parameters.items():
        if value is None:
            request.parameters[key].SetInParent()
        else:
            setattr(request.parameters[key], kinds[type(value)], value)
    call = FakeCall("/r", request.SerializeToString(), peer="ipv4:10.0.0.1:7", identity="spiffe://a/b")
    return await repository_rpcs(server)[f"RepositoryModel{verb}"](call)


async def test_index_of_models_that_are_those_of_the_start() -> None:
    ready = [("m", "2", "READY", ""), ("m", "10", "READY", "")]
    assert await index(FIXED) == [("bad", "", "UNAVAILABLE", "model 'bad' could not be loaded: no"),
                                  ("late", "", "LOADING", "model 'late' is loading"), *ready]
    assert await index(FIXED, ready=True) == ready
    assert await index(FIXED, repository_name="another") == []


async def test_index_has_every_version_with_its_state(server: FakeServer, control: FakeControl) -> None:
    control.rows = [IndexRow("m", "10", "READY"), IndexRow("m", "9", "UNAVAILABLE", "no such operator"),
                    IndexRow("m", "11", "LOADING"), IndexRow("a", "1", "UNLOADING"), IndexRow("z", "", "UNKNOWN")]
    assert await index(server) == [
        ("a", "1", "UNLOADING", ""), ("m", "9", "UNAVAILABLE", "no such operator"), ("m", "10", "READY", ""),
        ("m", "11", "LOADING", ""), ("z", "", "UNKNOWN", "")]
    assert await index(server, ready=True) == [("m", "10", "READY", "")]


@pytest.mark.parametrize("verb", ["Load", "Unload"])
@pytest.mark.parametrize("mode", ["none", "watch"])
async def test_wire_4_4_load_when_it_is_not_enabled(verb: str, mode: str) -> None:
    control = FakeControl(mode)
    with pytest.raises(FailedPrecondition, match=f"model control is not enabled: the server is in mode '{mode}'"):
        await ask(FakeServer(control=control), verb, "m")
    assert control.asked == []


async def test_models_of_the_start_cannot_be_changed() -> None:
    fixed = FIXED.repository.control
    for change in (fixed.load("m", None, "t"), fixed.unload("m", False, "t"), fixed.label("m", "stable", 1, "t")):
        with pytest.raises(FailedPrecondition):
            await change


async def test_load_and_unload(server: FakeServer, control: FakeControl) -> None:
    who = "ipv4:10.0.0.1:7 spiffe://a/b"
    assert await ask(server, "Load", "m") == b""
    assert await ask(server, "Unload", "m") == b""
    assert await ask(server, "Unload", "m", unload_dependents=True) == b""
    assert [asked for stage, *asked in control.asked if stage == "begin"] == [
        ["load", "m", None, who], ["unload", "m", False, who], ["unload", "m", True, who]]


async def test_label_move(server: FakeServer, control: FakeControl) -> None:
    await ask(server, "Load", "m", label="stable", version=3)
    await ask(server, "Load", "m", label="stable", version=0)
    assert [asked[2:4] for stage, *asked in control.asked if stage == "begin"] == [["stable", 3], ["stable", 0]]


async def test_f29_f26_the_controls_answer_is_the_callers(server: FakeServer, control: FakeControl) -> None:
    for error in (NotFound("no model 'm'"), FailedPrecondition("model 'm' could not be loaded: bad")):
        control.error = error
        for verb in ("Load", "Unload"):
            with pytest.raises(type(error), match=str(error)):
                await ask(server, verb, "m")
    assert server.repository.under_way == 0


CONFIG = json.dumps({"name": "m", "maxBatchSize": 8, "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["4"]}]})


async def test_a_load_with_another_configuration(server: FakeServer, control: FakeControl) -> None:
    await ask(server, "Load", "m", config=CONFIG)
    overrides = control.asked[0][3]
    assert overrides.directory is None
    from google.protobuf import text_format

    config = text_format.Parse(overrides.config, message("inference.ModelConfig")())
    assert (config.max_batch_size, config.input[0].name, list(config.input[0].dims)) == (8, "x", [4])


async def test_files_of_a_load_live_as_long_as_they_are_served(
        server: FakeServer, control: FakeControl, temporary: Path) -> None:
    first = {"config": CONFIG, "file:1/model.onnx": b"abc", "file:2/model.onnx": b"de", "file:2/w.data": b""}
    await ask_with(server, "Load", "m", first)
    assert control.seen_files == [{"1/model.onnx": b"abc", "2/model.onnx": b"de", "2/w.data": b""}]
    directory = control.asked[0][3].directory
    assert directory.name == "m"
    assert directory.parent.stat().st_mode & 0o777 == 0o700
    assert server.repository.files.held_bytes == 5
    # One that fails leaves what is served as it is.
    control.error = FailedPrecondition("bad")
    with pytest.raises(FailedPrecondition):
        await ask_with(server, "Load", "m", {"config": CONFIG, "file:1/model.onnx": b"new"})
    with pytest.raises(FailedPrecondition):
        await ask(server, "Unload", "m")
    assert (list(temporary.iterdir()), server.repository.files.held_bytes) == ([directory.parent], 5)
    # One that does not brings its own, or none.
    control.error = None
    await ask_with(server, "Load", "m", {"config": CONFIG, "file:7/model.onnx": b"seven"})
    assert control.seen_files[-1] == {"7/model.onnx": b"seven"}
    assert (len(list(temporary.iterdir())), server.repository.files.held_bytes) == (1, 5)
    await ask(server, "Load", "m")
    assert (list(temporary.iterdir()), server.repository.files.held_bytes) == ([], 0)
    for change in (ask(server, "Unload", "m"), server.repository.close()):
        await ask_with(server, "Load", "m", first)
        assert len(list(temporary.iterdir())) == 1
        await change
        assert (list(temporary.iterdir()), server.repository.files.held_bytes) == ([], 0)


async def test_files_that_are_kept_outlive_a_restart(tmp_path: Path) -> None:
    place = tmp_path / "loads"
    files = OverrideFiles(1000, place)
    held = await files.write("m", {("1", "model.onnx"): b"abc", ("2", "model.onnx"): b"de"})
    await files.keep("m", held)
    # Of loads that did not end: what is half written is no model's.
    await files.write("m", {("1", "model.onnx"): b"later"})
    await files.write("n", {("1", "model.onnx"): b"other"})
    await files.close()
    assert (len(list(place.iterdir())), place.stat().st_mode & 0o777) == (3, 0o700)
    gone, outside = place / "infer-load-gone" / "x", tmp_path / "elsewhere" / "infer-load-1" / "y"
    outside.mkdir(parents=True)
    again = OverrideFiles(1000, place, {"m": held.directory, "x": gone, "y": outside})
    assert (list(place.iterdir()), again.held_bytes) == ([held.root], 5)
    assert contents(held.directory) == {"1/model.onnx": b"abc", "2/model.onnx": b"de"}
    await again.keep("m", None)
    assert (list(place.iterdir()), again.held_bytes) == ([], 0)
    assert outside.is_dir()


async def test_files_are_bounded_all_together(server: FakeServer, temporary: Path) -> None:
    await ask_with(server, "Load", "a", {"config": "{}", "file:1/model.onnx": b"x" * 600})
    with pytest.raises(ResourceExhausted, match=r"have 401 bytes, and those of other loads hold 600 of 1000 "
                                                r"\(--max-override-bytes\)"):
        await ask_with(server, "Load", "b", {"config": "{}", "file:1/model.onnx": b"x" * 401})
    await ask_with(server, "Load", "b", {"config": "{}", "file:1/model.onnx": b"x" * 400})
    await ask(server, "Unload", "a")
    await ask_with(server, "Load", "a", {"config": "{}", "file:1/model.onnx": b"x" * 600})
    assert len(list(temporary.iterdir())) == 2


async def test_f32_files_that_cannot_be_written(
        server: FakeServer, control: FakeControl, monkeypatch: pytest.MonkeyPatch, temporary: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(temporary / "gone"))
    with pytest.raises(ResourceExhausted, match="its files cannot be written: No such file or directory") as caught:
        await ask_with(server, "Load", "m", {"config": "{}", "file:1/model.onnx": b"x"})
    assert str(temporary) not in caught.value.message
    assert (control.asked, server.repository.files.held_bytes) == ([], 0)


@pytest.mark.parametrize(("parameters", "text"), [
    ({"confg": "{}"}, r"unknown parameter 'confg' \(did you mean 'config'\?\)"),
    ({"x": True}, "unknown parameter 'x'; expected config, label, version, file:<version>/<name>"),
    ({"config": b"{}"}, "parameter 'config': expected string_param, got bytes_param"),
    ({"config": None}, "parameter 'config': expected string_param, got no value"),
    ({"config": "{"}, "parameter 'config' is not a ModelConfig as JSON"),
    ({"config": '{"max_batch": 1}'}, 'no field named "max_batch"'),
    ({"config": '{"name": "other"}'}, "parameter 'config' is of model 'other'"),
    ({"config": "[" * 5000}, "is not a ModelConfig as JSON"),
    ({"config": " " * (CONFIG_CHARACTERS + 1)}, f"at most {CONFIG_CHARACTERS} are read"),
    ({"file:1/model.onnx": b""}, "need config, its configuration as JSON, beside them"),
    ({"config": "{}", "file:1/model.onnx": "text"}, "expected bytes_param, got string_param"),
    ({"label": "stable"}, "both together and without other parameters; got label"),
    ({"version": 1}, "both together"),
    ({"label": "stable", "version": 1, "config": "{}"}, "got config, label, version"),
    ({"label": "stable", "version": 1, "file:1/m": b""}, "without other parameters"),
    ({"label": "stable", "version": "1"}, "parameter 'version': expected int64_param, got string_param"),
    ({"label": "stable", "version": -1}, "version -1: expected a version's number, or 0"),
    ({"label": "stable", "version": 10**18}, "expected a version's number"),
    *(({"label": label, "version": 1}, "expected 1 to 128 letters") for label in ("", "3", "a b", "x" * 129, "a/b")),
    *(({"config": "{}", f"file:{path}": b""}, "expected file:<version>/<name>, such as file:1/model.onnx")
      for path in ("", "1", "1/", "/m", "0/m", "01/m", "v1/m", "1/..", "1/.", "../m", "1/a/b", "1/../../m", "1/a\\b",
                   "1/\0", "1/x y", "1/" + "x" * 256, "1/\u00e9", "-1/m", "1" * 19 + "/m")),
])
async def test_parameters_that_are_refused(
        server: FakeServer, control: FakeControl, parameters: dict[str, Any], text: str, temporary: Path) -> None:
    with pytest.raises(InvalidArgument, match=text):
        await ask_with(server, "Load", "m", parameters)
    assert (control.asked, list(temporary.iterdir())) == ([], [])


@pytest.mark.parametrize(("parameters", "text"), [
    ({"unload_dependents": 1}, "expected bool_param, got int64_param"),
    ({"config": "{}"}, "unknown parameter 'config'; expected unload_dependents"),
])
async def test_parameters_of_an_unload_that_are_refused(
        server: FakeServer, control: FakeControl, parameters: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        await ask_with(server, "Unload", "m", parameters)
    assert control.asked == []


@pytest.mark.parametrize("verb", ["Load", "Unload"])
@pytest.mark.parametrize("name", ["", "..", ".", "../m", "a/b", "a\0", "x" * 129, "\u00e9"])
async def test_names_that_are_refused(server: FakeServer, control: FakeControl, verb: str, name: str) -> None:
    with pytest.raises(InvalidArgument, match="model name"):
        await ask(server, verb, name)
    assert control.asked == []


async def test_repositories_have_no_names(server: FakeServer) -> None:
    with pytest.raises(InvalidArgument, match="leave repository_name out"):
        await ask(server, "Load", "m", "here")


# F31: in the order in which they came, one at a time for each model.

def stages(control: FakeControl) -> list[tuple[str, str, str]]:
    return [(stage, asked[0], asked[1]) for stage, *asked in control.asked]


async def turns(count: int = 20) -> None:
    for _ in range(count):
        await turn()


async def test_f31_changes_of_one_model_are_made_one_after_the_other(server: FakeServer, control: FakeControl) -> None:
    control.gates["m"] = asyncio.Event()
    calls = [asyncio.ensure_future(ask(server, verb, model)) for verb, model in (
        ("Load", "m"), ("Unload", "m"), ("Load", "n"), ("Load", "m"))]
    await turns()
    assert stages(control) == [("begin", "load", "m"), ("begin", "load", "n"), ("end", "load", "n")]
    assert server.repository.under_way == 3
    control.gates["m"].set()
    await asyncio.gather(*calls)
    assert stages(control)[3:] == [("end", "load", "m"), ("begin", "unload", "m"), ("end", "unload", "m"),
                                   ("begin", "load", "m"), ("end", "load", "m")]
    assert server.repository.under_way == 0


async def test_f31_a_change_goes_on_when_its_caller_is_gone(server: FakeServer, control: FakeControl) -> None:
    control.gates["m"] = asyncio.Event()
    load = asyncio.ensure_future(ask(server, "Load", "m"))
    unload = asyncio.ensure_future(ask(server, "Unload", "m"))
    late = asyncio.ensure_future(ask(server, "Load", "m"))
    await turns()
    # The first one has begun, the second one waits: it is not made.
    load.cancel()
    unload.cancel()
    await turns()
    assert stages(control) == [("begin", "load", "m")]
    control.gates["m"].set()
    await late
    assert stages(control) == [("begin", "load", "m"), ("end", "load", "m")] * 2
    assert server.repository.under_way == 0


async def test_a_failure_that_nobody_waits_for(server: FakeServer, control: FakeControl) -> None:
    control.gates["m"] = asyncio.Event()
    load = asyncio.ensure_future(ask(server, "Load", "m"))
    await turns()
    load.cancel()
    control.error = FailedPrecondition("bad")
    control.gates["m"].set()
    await turns()
    assert server.repository.under_way == 0


async def test_calls_that_wait_are_bounded(server: FakeServer, control: FakeControl) -> None:
    control.gates["m"] = asyncio.Event()
    calls = [asyncio.ensure_future(ask(server, "Load", "m")) for _ in range(4)]
    await turns()
    for model in ("m", "n"):
        with pytest.raises(ResourceExhausted, match=r"4 loads, unloads and label moves .*--max-control-calls"):
            await ask(server, "Load", model)
    assert (server.repository.under_way, server.repository.refused) == (4, 2)
    control.gates["m"].set()
    await asyncio.gather(*calls)
    await ask(server, "Load", "n")


async def test_close_ends_what_is_under_way(server: FakeServer, control: FakeControl) -> None:
    control.gates["m"] = asyncio.Event()
    load = asyncio.ensure_future(ask(server, "Load", "m"))
    await turns()
    await server.repository.close()
    with pytest.raises(asyncio.CancelledError):
        await load
    assert server.repository.under_way == 0


# What the other RPCs show of it.

async def test_extensions_name_control_where_it_is_enabled(server: FakeServer, control: FakeControl) -> None:
    async def extensions() -> list[str]:
        reply = await metadata_rpcs(server)["ServerMetadata"](FakeCall("/m"))
        return list(message("inference.ServerMetadataResponse").FromString(reply).extensions)

    assert "model_repository" in await extensions()
    assert "model_repository(unload_dependents)" in await extensions()
    control.mode = "watch"
    assert "model_repository" not in await extensions()


async def test_labels_are_properties_of_a_version() -> None:
    second, third = FakeVersion(b"m", "2"), FakeVersion(b"m", "3")
    server = FakeServer(FakeRoutes({"m": [second, third]}, labels={"m": {"stable": second, "canary": second}}))
    path = "/inference.GRPCInferenceService/ModelMetadata"

    async def properties(version: str) -> dict[str, str]:
        request = message("inference.ModelMetadataRequest")(name="m", version=version).SerializeToString()
        reply = await inference_service(server)[path](FakeCall(path, request))
        return dict(message("inference.ModelMetadataResponse").FromString(reply).properties)

    assert await properties("2") == {"labels": "canary, stable"}
    assert await properties("3") == {}
