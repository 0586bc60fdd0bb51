"""`infer check`: its output, its exit status, what --fix does and what it leaves alone."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from infer.cli import main
from tests.support import models
from tests.support.models import write_external_data_model, write_model, write_version


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["check", *map(str, arguments)])


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    write_version(tmp_path, "good", 1, models.dense())
    return tmp_path


def test_nothing_wrong(repository: Path) -> None:
    done = run(repository)
    assert (done.exit_code, done.output) == (0, "1 model, 1 version: 0 errors, 0 warnings\n")


def test_every_problem_is_a_line_with_its_place(repository: Path) -> None:
    write_model(repository / "a/v1/model.onnx", models.dense())
    write_version(repository, "b", 1, models.zipmap())
    write_model(repository / "good/config.pbtxt", b'backend: "onnxruntime"\nmax_batchsize: 8\n')
    done = run(repository)
    assert done.exit_code == 1
    *lines, last = done.output.splitlines()
    assert last == "2 models, 2 versions: 2 errors, 1 warning"
    assert [line.partition(f"{repository}/")[0] for line in lines] == ["error: ", "error: ", "warning: "]
    assert [line.split(": ")[1].removeprefix(f"{repository}/") for line in lines] == [
        "a", "good/config.pbtxt:2:1", "b/1/model.onnx"]


def test_warnings_count_where_that_is_asked_for(repository: Path) -> None:
    write_version(repository, "b", 1, models.zipmap())
    assert run(repository).exit_code == 0
    assert run(repository, "--strict").exit_code == 1


def test_json(repository: Path) -> None:
    config = write_model(repository / "good/config.pbtxt", b'name: "other"\n')
    done = run(repository, "--json")
    assert done.exit_code == 1
    said = json.loads(done.output)
    assert (said["models"], said["versions"], said["fixed"]) == (1, 1, [])
    (problem,) = said["problems"]
    assert (problem["file"], problem["line"], problem["code"], problem["severity"]) == (str(config), 1, "E108", "error")
    assert problem["text"].startswith(f"{config}:1:1: name: ")
    assert {"field", "expected", "got", "fix", "cause"} <= problem.keys()


def test_files_of_models(repository: Path) -> None:
    text = 'model_config_list { config { name: "good" base_path: "good" model_platform: "onnx" } }'
    models_list = write_model(repository / "models.config", text.encode())
    assert run("--model-config-file", models_list).output == "1 model, 1 version: 0 errors, 0 warnings\n"
    toml = write_model(repository / "infer.toml", b"port = 1\n[models.good]\nmax_batchsize = 8\n")
    done = run(repository, "--model-config-file", models_list, "--config", toml)
    assert done.exit_code == 1
    assert done.output.startswith(f"error: {toml}:3:1: ")
    models_list.write_text(text.replace("onnx", "tensorflow"))
    assert "tf2onnx.convert" in run("--model-config-file", models_list).output


def test_a_file_of_models_that_is_not_there(tmp_path: Path) -> None:
    done = run("--model-config-file", tmp_path / "none")
    assert done.exit_code == 1
    assert str(tmp_path / "none") in done.output


@pytest.mark.parametrize("arguments", [[], ["--strict"], ["--no-such-flag", "x"]])
def test_a_wrong_command_line(arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    done = run(tmp_path / "none")
    assert done.exit_code == 1
    assert "does not exist" in done.output


def test_checksums_that_are_asked_for(repository: Path) -> None:
    done = run(repository, "--require-checksums")
    assert done.exit_code == 1
    assert "there is no SHA256SUMS" in done.output


def test_fix_renames_moves_and_edits_and_prints_each(repository: Path) -> None:
    write_model(repository / "a/v1/model.onnx", models.dense())
    write_model(repository / "b/02/model.onnx", models.dense())
    write_version(repository, "b", 1, models.dense())
    write_external_data_model(repository / "c/net.onnx")
    config = write_model(repository / "good/config.pbtxt", b'# mine\nname: "other" # yes\nbackend: "onnxruntime"\n')
    before = write_version(repository, "d", 1, b"")
    done = run(repository, "--fix")
    assert done.exit_code == 1
    lines = done.output.splitlines()
    assert [line for line in lines if line.startswith("fixed: ")] == [
        f"fixed: {repository / 'a/v1'}: renamed to 1",
        f"fixed: {repository / 'b/02'}: renamed to 2",
        f"fixed: {repository / 'c/net.onnx'}: moved to {repository / 'c/1/model.onnx'}, with net.onnx.data",
        f"fixed: {config}:2:1: name is 'good' now"]
    assert config.read_bytes() == b'# mine\nname: "good" # yes\nbackend: "onnxruntime"\n'
    assert [line for line in lines if line.startswith("error: ")] == [
        f"error: {before}: is empty: the copy or the export was cut short; write it again [E209]"]
    before.write_bytes(models.dense())
    assert run(repository, "--fix").output == "5 models, 6 versions: 0 errors, 0 warnings\n"


def test_fix_overwrites_nothing(repository: Path) -> None:
    for name in ("01", "v1"):
        write_model(repository / "a" / name / "model.onnx", models.scale(len(name) + ord(name[0])))
    write_model(repository / "b/model.onnx", models.dense()[:-9])
    write_model(repository / "b/1/notes.txt", b"")
    contents = {path.read_bytes() for path in repository.rglob("*.onnx")}
    run(repository, "--fix")
    assert {path.read_bytes() for path in repository.rglob("*.onnx")} == contents
    assert sorted(path.name for path in (repository / "a").iterdir()) == ["1", "v1"]
    assert (repository / "b/model.onnx").exists()
