"""`infer serve` and `infer --version` as users run them: processes, their output, their exit status."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from infer import __version__
from infer.cli.client import CallFailed, Client, random_inputs, typed_inputs
from infer.config import Settings, flag_of
from tests.support import models
from tests.support.command import EXAMPLES, SECONDS, Process, Serving, command_line, environment, run

DRAINED, FAILED, USAGE = 0, 1, 2


def bare(folder: Path) -> Path:
    return models.write_model(folder / "fraud.onnx", models.dense())


def in_a_directory(folder: Path) -> Path:
    return models.write_model(folder / "fraud" / "model.onnx", models.dense()).parent


def with_versions(folder: Path) -> Path:
    models.write_version(folder, "fraud", 2, models.scale())
    return models.write_version(folder, "fraud", 11, models.dense()).parents[1]


def repository(folder: Path) -> Path:
    models.write_version(folder / "models", "ranking", 1, models.scale())
    return with_versions(folder / "models").parent


LAYOUTS: list[tuple[Callable[[Path], Path], dict[str, str]]] = [
    (bare, {"fraud": "1"}), (in_a_directory, {"fraud": "1"}), (with_versions, {"fraud": "11"}),
    (repository, {"fraud": "11", "ranking": "1"})]


@pytest.mark.parametrize(("write", "served"), LAYOUTS, ids=lambda value: getattr(value, "__name__", ""))
def test_layouts(tmp_path: Path, write: Callable[[Path], Path], served: dict[str, str]) -> None:
    with Serving(write(tmp_path)) as serving:
        rows = [line.split("  ") for line in serving.stdout[1:1 + len(served)]]
        assert {row[0].strip(): row[1].strip() or row[2].strip() for row in rows} == served
        with Client(serving.address, SECONDS) as client:
            for model, version in served.items():
                metadata = client.metadata(model)
                assert list(metadata.versions) == [version]
                reply = client.infer(model, typed_inputs(metadata, random_inputs(metadata)))
                assert (reply.model_name, reply.model_version) == (model, version)
        assert serving.stop() == DRAINED, serving.output


def test_start(tmp_path: Path) -> None:
    with Serving(repository(tmp_path), "--gather-rows", "32", "--executors", "3") as serving:
        assert serving.stdout[:3] == [
            "MODEL    VERSION  INPUTS            OUTPUTS           BATCHING",
            "fraud    11       x FP32 [batch,4]  y FP32 [batch,3]  up to 32 rows",
            "ranking  1        x FP32 [batch,4]  y FP32 [batch,4]  up to 32 rows",
        ]
        assert re.search(r"^executors  3 x \d+ thread", serving.start, re.M)
        assert re.search(r"^ready in   \d+ ms: scan \d+ ms, runtime .*load fraud .*load ranking .*listen ",
                         serving.start, re.M)
        port = serving.address.rpartition(":")[2]
        assert int(port) > 0
        assert serving.address == f"127.0.0.1:{port}"
        for line in (f"  infer call fraud --address {serving.address}",
                     f'  reply = triton.InferenceServerClient("{serving.address}").infer("fraud", [x])'):
            assert line in serving.stdout
        assert sum(line.startswith(("  grpcurl ", "  ghz ")) for line in serving.stdout) == 2
        for page in ("/v2/health/live", "/v2/health/ready", "/metrics"):
            with urllib.request.urlopen(f"http://{serving.http}{page}", timeout=SECONDS) as reply:
                assert reply.status == 200
        assert serving.stop() == DRAINED, serving.output


def test_why_a_model_is_not_batched(tmp_path: Path) -> None:
    with Serving(models.write_model(tmp_path / "mean.onnx", models.batch_mean_subtracted())) as serving:
        assert serving.stdout[1].endswith("  no: output 'y' of a row changes with the rows beside it")
        serving.wait_for(r"model 'mean' version 1 loaded, not batched: output 'y' of a row changes")


def test_outputs_that_are_not_tensors(tmp_path: Path) -> None:
    with Serving(models.write_model(tmp_path / "clf.onnx", models.zipmap())) as serving:
        assert any(line.split() == ["scores", "SEQUENCE", "(not", "served)"] for line in serving.stdout)
        with Client(serving.address, SECONDS) as client:
            metadata = client.metadata("clf")
            assert [tensor.name for tensor in metadata.outputs] == ["label", "probabilities"]
            assert metadata.properties["outputs_not_served"] == "scores"
            inputs = typed_inputs(metadata, random_inputs(metadata))
            assert list(client.infer("clf", inputs)) == ["label", "probabilities"]
            with pytest.raises(CallFailed, match=r"INVALID_ARGUMENT: output 'scores' of model 'clf'.*zipmap=False"):
                client.infer("clf", inputs, outputs=["scores"])


def test_a_model_that_fails_beside_one_that_is_served(tmp_path: Path) -> None:
    models.write_version(tmp_path, "bad", 1, models.unknown_operator())
    models.write_version(tmp_path, "good", 1, models.dense())
    with Serving(tmp_path) as serving:
        told = "model 'bad' version 1 is not served: ONNX Runtime .*NoSuchOperator.*; upgrade onnxruntime, or export"
        assert re.search(f"^{told}", serving.start, re.M)
        with Client(serving.address, SECONDS) as client:
            with pytest.raises(CallFailed, match=f"FAILED_PRECONDITION: {told}"):
                client.metadata("bad")
        with pytest.raises(urllib.error.HTTPError) as unready:
            urllib.request.urlopen(f"http://{serving.http}/v2/health/ready", timeout=SECONDS)
        with unready.value:
            assert unready.value.code == 503
        assert serving.stop() == DRAINED


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains(tmp_path: Path, number: int) -> None:
    """Ctrl-C does not wait for the delay, so that of 1 h would be seen."""
    delay = ("--drain-delay", "0" if number == signal.SIGTERM else "1h")
    with Serving(bare(tmp_path), "--host", "127.0.0.1", "--port", "0", "--http-port", "0", *delay, defaults=False
                 ) as serving:
        assert serving.stop(number) == DRAINED
        steps = [json.loads(line)["msg"] for line in serving.stderr]
        assert steps[-3:] == ["draining: unready", "draining: GOAWAY", "drained"]


def test_a_second_signal_stops_at_once(tmp_path: Path) -> None:
    with Serving(bare(tmp_path), "--host", "127.0.0.1", "--port", "0", "--http-port", "0", "--drain-delay", "1h",
                 defaults=False) as serving:
        serving.process.send_signal(signal.SIGTERM)
        serving.wait_for("draining: unready")
        assert serving.stop() == FAILED
        serving.wait_for("second signal")


def test_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "i.sock"
    # One that a dead server left behind is no obstacle.
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with Serving(bare(tmp_path), "--uds", path) as serving:
        assert serving.grpc[1] == f"unix:{path}"
        done = run("call", "fraud", "x=[[1,2,3,4]]", "--address", f"unix:{path}", "--json")
        assert done.returncode == 0, done.stderr
        second = run("serve", bare(tmp_path), "--port", "0", "--http-port", "0", "--uds", path)
        assert second.returncode == FAILED
        assert second.stderr == (f"infer serve: cannot bind {path} (--uds): another server answers on it; stop what "
                                 "holds it, or choose another\n")
        assert serving.stop() == DRAINED
    assert not path.exists()


def test_a_file_in_the_way_of_the_unix_socket_is_kept(tmp_path: Path) -> None:
    file = bare(tmp_path)
    done = run("serve", file, "--port", "0", "--http-port", "0", "--uds", file)
    assert done.returncode == FAILED
    assert f"cannot bind {file} (--uds): it is not a socket" in done.stderr
    assert file.stat().st_size > 0


@pytest.mark.parametrize(("flag", "flags"), [("--port", "(--host, --port)"), ("--http-port", "(--host, --http-port)")])
def test_a_port_that_is_taken(tmp_path: Path, flag: str, flags: str) -> None:
    other = {"--port": "--http-port", "--http-port": "--port"}[flag]
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        done = run("serve", bare(tmp_path), "--host", "127.0.0.1", flag, port, other, "0")
    assert done.returncode == FAILED
    assert done.stdout == ""
    assert done.stderr.startswith(f"infer serve: cannot bind 127.0.0.1:{port} {flags}")
    assert done.stderr.endswith("Address already in use; stop what holds it, or choose another\n")


def nothing(folder: Path) -> Path:
    return folder / "nothing"


def garbage(folder: Path) -> Path:
    models.write_model(folder / "data" / "notes.txt", b"x")
    return folder / "data"


def other_file(folder: Path) -> Path:
    return models.write_model(folder / "model.pt", b"PK")


def broken_link(folder: Path) -> Path:
    (folder / "model.onnx").symlink_to("gone.onnx")
    return folder / "model.onnx"


def cut_short(folder: Path) -> Path:
    return models.write_model(folder / "cut.onnx", models.dense()[:-20])


def not_a_model(folder: Path) -> Path:
    return models.write_model(folder / "image.onnx", b"\x89PNG\r\n\x1a\n" + bytes(100))


def only_a_sequence(folder: Path) -> Path:
    return models.write_model(folder / "seq.onnx", models.sequence_only())


def missing_weights(folder: Path) -> Path:
    path = models.write_external_data_model(folder / "w" / "model.onnx")
    (folder / "w" / "model.onnx.data").unlink()
    return path


def unsupported(folder: Path) -> Path:
    return models.write_model(folder / "new.onnx", models.unknown_operator())


@pytest.mark.parametrize(("write", "told"), [
    (nothing, r"nothing: does not exist, expected a model\.onnx, its directory or a repository"),
    (garbage, r"data: no \.onnx file found, expected model\.onnx, <version>/model\.onnx or .*, got notes\.txt; put"),
    (other_file, r"model\.pt: is not an \.onnx file, expected .*; export the model to ONNX"),
    (broken_link, r"model\.onnx: (does not exist|is) .*a symbolic link to nothing"),
    (cut_short, r"cut\.onnx: is not an ONNX model, or only a part of one; wait for its copy to end; if that was cut"),
    (not_a_model, r"image\.onnx: is not an ONNX model, or only a part of one"),
    (only_a_sequence, r"model 'seq' version 1 is not served: none of the model's outputs is a tensor: y .*; export it"),
    (missing_weights, r"'model\.onnx\.data' is missing; copy it beside the model"),
    (unsupported, r"model 'new' version 1 is not served: .*NoSuchOperator.*; upgrade onnxruntime, or export"),
], ids=lambda value: getattr(value, "__name__", ""))
def test_what_cannot_be_served(tmp_path: Path, write: Callable[[Path], Path], told: str) -> None:
    done = run("serve", write(tmp_path), "--model-control-mode", "none", "--host", "127.0.0.1", "--port", "0",
               "--http-port", "0")
    assert done.returncode == FAILED
    assert done.stdout == ""
    last = done.stderr.rpartition("infer serve: ")[2]
    assert re.search(told, last), done.stderr
    assert "Traceback" not in done.stderr


def test_every_problem_is_reported_at_once(tmp_path: Path) -> None:
    models.write_model(tmp_path / "x.pt", b"")
    (tmp_path / "r" / "c" / "1").mkdir(parents=True)
    done = run("serve", *(tmp_path / name for name in ("x.pt", "none", "r")), "--model-control-mode", "none",
               "--port", "0", "--http-port", "0")
    assert done.returncode == FAILED
    first, *rest = done.stderr.rpartition("infer serve: ")[2].splitlines()
    assert first == "no model could be loaded:"
    assert "model 'c' version 1 is not served: 1: model.onnx: expected model.onnx in it" in rest[0]
    assert [line.strip().removeprefix(f"{tmp_path}/").split(":")[0] for line in rest[1:]] == ["x.pt", "none", "r/c/1"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    file = bare(tmp_path)
    file.chmod(0)
    done = run("serve", file, "--port", "0", "--http-port", "0")
    assert done.returncode == FAILED
    assert f"{file}: cannot be read: Permission denied" in done.stderr


def test_usage_tells_every_problem_at_once(tmp_path: Path) -> None:
    (tmp_path / "infer.toml").write_text('prot = 1\nexecutors = "none"\n')
    done = run("serve", "", "--port", "99999", "--provider", "gpu", cwd=tmp_path, env={"INFER_GATHER_ROWS": "-1"})
    assert done.returncode == USAGE
    assert done.stderr.splitlines() == [
        "infer serve: 6 problems in the settings:",
        "  infer.toml:1: unknown setting 'prot' (did you mean 'port'?)",
        "  PATH: got ('',): a path is empty; a variable in the command line may be unset",
        "  --port: got '99999': should be less than or equal to 65535",
        "  --provider: got 'gpu': unknown execution provider 'gpu' (did you mean 'cpu'?); expected auto, cpu, cuda, "
        "tensorrt, openvino",
        "  infer.toml:2: executors: got 'none': expected a whole number such as 64 or 1k",
        "  INFER_GATHER_ROWS: got '-1': should be greater than or equal to 1",
    ]


def test_flag_over_variable_over_file(tmp_path: Path) -> None:
    bare(tmp_path)
    (tmp_path / "infer.toml").write_text('paths = ["fraud.onnx"]\nname = "file"\nexecutors = 2\ngather_rows = 5\n')
    with Serving("--name", "flag", cwd=tmp_path, env={"INFER_NAME": "variable", "INFER_EXECUTORS": "3"}) as serving:
        assert serving.stdout[1] == "flag   1        x FP32 [batch,4]  y FP32 [batch,3]  up to 5 rows"
        assert re.search("^executors  3 x ", serving.start, re.M)
        assert serving.stop() == DRAINED


def test_a_file_of_settings_by_name(tmp_path: Path) -> None:
    (tmp_path / "infer.toml").write_text("executors = 2\n")
    (tmp_path / "other.toml").write_text("executors = 4\n")
    with Serving(bare(tmp_path), cwd=tmp_path, env={"INFER_CONFIG": "other.toml"}) as serving:
        assert re.search("^executors  4 x ", serving.start, re.M)


def test_json_off_a_terminal(tmp_path: Path) -> None:
    with Serving(bare(tmp_path)) as serving:
        assert serving.stop() == DRAINED
        records = [json.loads(line) for line in serving.stderr]
    assert all({"ts", "level", "msg", "logger"} <= set(record) for record in records)
    (record,) = (record for record in records if record["msg"] == "serving")
    assert record["grpc"] == serving.grpc
    assert record["models"] == ["fraud"]


def test_text_where_it_is_asked_for(tmp_path: Path) -> None:
    with Serving(bare(tmp_path), "--log-format", "text", "--log-level", "DEBUG") as serving:
        assert serving.stop() == DRAINED
        lines = serving.stderr
    assert all(re.match(r"\d\d:\d\d:\d\d\.\d{3} (DEBUG|INFO) ", line) for line in lines), lines
    assert any("setting log_format value=text origin=--log-format" in line for line in lines)


def test_on_a_terminal(tmp_path: Path) -> None:
    """The table is drawn, and logs are text."""
    ours, theirs = pty.openpty()
    arguments = command_line("serve", bare(tmp_path), "--host", "127.0.0.1", "--port", "0", "--http-port", "0")
    process = subprocess.Popen(arguments, env=environment(TERM="xterm", COLUMNS="120"), stdin=subprocess.DEVNULL,
                               stdout=theirs, stderr=theirs)
    os.close(theirs)
    try:
        shown = b""
        while not re.search(rb"INFO +serving grpc=.*\n", shown):
            # Fails where the other side is closed, which is when the process has ended.
            shown += os.read(ours, 4096)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == DRAINED
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert " fraud │ 1       │ x FP32 [batch,4] │ y FP32 [batch,3] │ up to 64 rows".encode() in shown


def test_version() -> None:
    done = run("--version")
    assert done.returncode == 0
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["infer", "libnghttp2", "onnxruntime", "python"]
    assert done.stdout.startswith(f"infer {__version__}\n")


def test_help_names_every_setting_with_its_default() -> None:
    done = run("serve", "--help")
    assert done.returncode == 0
    words = done.stdout.split()
    assert all(flag_of(name) in words for name in Settings.model_fields if name != "paths")
    assert re.search(r"\[64\s+MiB\]", done.stdout)


def test_health_over_grpc(tmp_path: Path) -> None:
    from infer.proto import message

    with Serving(bare(tmp_path)) as serving, grpc.insecure_channel(serving.address) as channel:
        check = channel.unary_unary("/grpc.health.v1.Health/Check", lambda sent: sent.SerializeToString(),
                                    message("grpc.health.v1.HealthCheckResponse").FromString)
        for service in ("", "readiness", "liveness", "fraud", "fraud/1"):
            assert check(message("grpc.health.v1.HealthCheckRequest")(service=service), timeout=SECONDS).status == 1


def test_killed_while_it_loads(tmp_path: Path) -> None:
    """A signal during the start ends it, drained of nothing."""
    with Process(command_line("serve", EXAMPLES, "--host", "127.0.0.1", "--port", "0", "--http-port", "0",
                              "--drain-delay", "0")) as process:
        process.wait_for("loaded")
        assert process.stop() == DRAINED, process.output
