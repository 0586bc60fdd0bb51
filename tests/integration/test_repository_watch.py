"""Repositories that change while they are served, over real sockets: versions come, go and fail beside calls."""

from __future__ import annotations

import hashlib
import itertools
import shutil
from pathlib import Path

import pytest

from infer.services.health import NOT_SERVING, SERVING
from tests.support import models
from tests.support.repositories import Repository, break_version, calling, place_version, repository_server
from tests.support.server import fetch, scrape

FILES = ("model.onnx", "model.onnx.data", "SHA256SUMS")


def ready(repository: Repository) -> bool:
    return fetch(repository.served.http_address, "/v2/health/ready")[0] == 200


def test_versions_come_and_go_while_calls_go_on(tmp_path: Path, transport: str) -> None:
    place_version(tmp_path, "m", 1)
    with repository_server(tmp_path, transport=transport) as repository:
        assert repository.answer("m") == ("1", 1.0)
        with calling(repository.served.address) as answers:
            for version in (2, 3, 4):
                place_version(tmp_path, "m", version)
                repository.until_answer((str(version), float(version)))
                repository.until_state(None, str(version - 1))
            # Files of a number that is served, anew.
            place_version(tmp_path, "m", 4, factor=40.0)
            repository.until_answer(("4", 40.0))
            shutil.rmtree(tmp_path / "m" / "4")
            repository.until_answer(("3", 3.0))
            repository.until_state(None, "4")
        assert [answer for answer, _ in itertools.groupby(answers)] == [
            ("1", 1.0), ("2", 2.0), ("3", 3.0), ("4", 4.0), ("4", 40.0), ("3", 3.0)]
        assert repository.status("m", "1")[0] == "NOT_FOUND"
        found = scrape(repository.served.http_address)
        # Counters of versions that are gone are gone with them.
        assert {dict(labels)["version"] for name, labels in found if name == "infer_rows_total"} == {"3"}


def test_models_come_and_go(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    with repository_server(tmp_path) as repository:
        assert repository.status("n")[0] == "NOT_FOUND"
        place_version(tmp_path, "n", 7)
        repository.until_answer(("7", 7.0), "n")
        shutil.rmtree(tmp_path / "n")
        repository.until(lambda: repository.status("n")[0] == "NOT_FOUND")
        assert repository.answer("m") == ("1", 1.0)
        assert ready(repository)


def test_f26_a_version_that_cannot_be_loaded_keeps_the_old_one(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    place_version(tmp_path, "n", 1)
    with repository_server(tmp_path) as repository, calling(repository.served.address) as answers:
        break_version(tmp_path, "m", 2)
        repository.until(lambda: repository.status("m", "2")[0] == "FAILED_PRECONDITION")
        assert "NoSuchOperator" in repository.status("m", "2")[1]
        assert (repository.answer("m"), repository.answer("n")) == (("1", 1.0), ("1", 1.0))
        assert ready(repository)
        found = scrape(repository.served.http_address)
        assert found["infer_model_events_total", frozenset({("event", "load"), ("outcome", "failed")})] >= 1
        # It is corrected.
        place_version(tmp_path, "m", 2)
        repository.until_answer(("2", 2.0))
        assert set(answers) <= {("1", 1.0), ("2", 2.0)}


def test_a_model_that_has_nothing_to_serve_makes_the_server_unready(tmp_path: Path) -> None:
    break_version(tmp_path, "bad", 1)
    place_version(tmp_path, "good", 1)
    with repository_server(tmp_path) as repository:
        assert repository.answer("good") == ("1", 1.0)
        assert repository.status("bad")[0] == "FAILED_PRECONDITION"
        assert not ready(repository)
        assert not repository.client.healthy("bad")
        shutil.rmtree(tmp_path / "bad")
        repository.until(lambda: ready(repository))


def test_a_repository_that_is_empty_at_first(tmp_path: Path) -> None:
    root = tmp_path / "models"
    root.mkdir()
    with repository_server(root, model_control_mode="watch") as repository:
        assert not ready(repository)
        place_version(root, "m", 1)
        repository.until_answer(("1", 1.0))
        assert ready(repository)


def test_a_mount_that_appears_late(tmp_path: Path) -> None:
    """A link to a directory that is swapped for another, as Kubernetes mounts them."""
    root = tmp_path / "models"
    with repository_server(root, model_control_mode="watch") as repository:
        assert not ready(repository)
        place_version(tmp_path / "first", "m", 1)
        root.symlink_to(tmp_path / "first")
        repository.until_answer(("1", 1.0))
        with calling(repository.served.address):
            place_version(tmp_path / "second", "m", 2)
            (tmp_path / "link").symlink_to(tmp_path / "second")
            (tmp_path / "link").rename(root)
            repository.until_answer(("2", 2.0))


def test_f27_a_slow_copy_is_never_loaded_early(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    content = models.scale(2.0)
    with repository_server(tmp_path, repository_settle_time=1.0) as repository:
        directory = tmp_path / "m" / "2"
        directory.mkdir()
        with (directory / "model.onnx").open("wb") as file:
            for at in range(0, len(content), 50):
                file.write(content[at:at + 50])
                file.flush()
                repository.looked(1)
                assert ("m", "2") not in repository.caller.index() or repository.answer("m") == ("1", 1.0)
                assert repository.answer("m") == ("1", 1.0)
        repository.until_answer(("2", 2.0))


# Without SHA256SUMS it is whole, too.
@pytest.mark.parametrize("order", [order for order in itertools.permutations(FILES) if order[-1] != "SHA256SUMS"],
                         ids=" ".join)
def test_f27_files_in_any_order_with_pauses_are_never_loaded_early(tmp_path: Path, order: tuple[str, ...]) -> None:
    """Pauses that are longer than the settle time: what there is says that it is not all of it."""
    place_version(tmp_path / "models", "m", 1)
    source = models.write_external_data_model(tmp_path / "source" / "model.onnx").parent
    (source / "SHA256SUMS").write_text("".join(
        f"{hashlib.sha256((source / name).read_bytes()).hexdigest()}  {name}\n"
        for name in FILES[:2]))
    with repository_server(tmp_path / "models") as repository:
        directory = tmp_path / "models" / "m" / "2"
        directory.mkdir()
        for name in order:
            content = (source / name).read_bytes()
            for end in (len(content) // 3, len(content)):
                assert repository.caller.index().get(("m", "2")) != "READY", (name, end)
                assert repository.answer("m") == ("1", 1.0)
                (directory / name).write_bytes(content[:end])
                if (name, end) != (order[-1], len(content)):
                    repository.looked(4)
        repository.until(lambda: repository.answer("m")[0] == "2")


def test_f27_a_copy_that_is_killed_takes_nothing_away(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    with repository_server(tmp_path) as repository:
        (tmp_path / "m" / "2").mkdir()
        (tmp_path / "m" / "2" / "model.onnx").write_bytes(models.scale(2.0)[:-20])
        repository.looked(5)
        assert repository.answer("m") == ("1", 1.0)
        assert repository.status("m", "2")[0] in ("NOT_FOUND", "UNAVAILABLE", "FAILED_PRECONDITION")
        assert ready(repository)


def test_edits_that_need_no_reload_are_applied_without_one(tmp_path: Path) -> None:
    for version in (1, 2, 3):
        place_version(tmp_path, "m", version)
    config = tmp_path / "m" / "config.pbtxt"
    config.write_text("max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 100 }\n")
    with repository_server(tmp_path) as repository, calling(repository.served.address):
        (before,) = repository.served.server.versions()

        def delay_us() -> int:
            return int(repository.caller.config("m").dynamic_batching.max_queue_delay_microseconds)

        assert delay_us() == 100
        config.write_text("max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 300 }\n")
        repository.until(lambda: delay_us() == 300)
        config.write_text("max_batch_size: 8\ndynamic_batching { max_queue_delay_microseconds: 300 }\n"
                          "version_policy { all {} }\n")
        repository.until_answer(("1", 1.0), "m", "1")
        repository.until_answer(("2", 2.0), "m", "2")
        assert before in repository.served.server.versions()
        # One that needs it.
        config.write_text("max_batch_size: 16\ndynamic_batching { max_queue_delay_microseconds: 300 }\n")
        repository.until(lambda: repository.caller.config("m").max_batch_size == 16)
        repository.until(lambda: len(repository.served.server.versions()) == 1)
        assert before not in repository.served.server.versions()


def test_a_configuration_with_an_error_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    place_version(tmp_path, "m", 1)
    config = tmp_path / "m" / "config.pbtxt"
    config.write_text("max_batch_size: 8\n")
    with repository_server(tmp_path) as repository:
        config.write_text("max_batch_sise: 4\n")
        repository.until(lambda: "max_batch_sise" in caplog.text)
        repository.looked(3)
        assert repository.answer("m") == ("1", 1.0)
        assert repository.caller.config("m").max_batch_size == 8
        ((reason,),) = [[each.reason] for each in repository.client.models()]
        assert "config.pbtxt:1:1: max_batch_sise" in reason
        # Said once, however often it is looked at.
        said = [record for record in caplog.records if "config.pbtxt:1:1" in record.getMessage()
                and record.name == "infer.models"]
        assert len(said) == 1


def test_health_watch_hears_of_a_model(tmp_path: Path) -> None:
    place_version(tmp_path, "m", 1)
    with repository_server(tmp_path) as repository:
        import grpc

        from infer.proto import message

        reply = message("grpc.health.v1.HealthCheckResponse")
        with grpc.insecure_channel(repository.served.address) as channel:
            watch = channel.unary_stream("/grpc.health.v1.Health/Watch", response_deserializer=reply.FromString)
            call = watch(message("grpc.health.v1.HealthCheckRequest")(service="m/2").SerializeToString(), timeout=60)
            assert next(call).status not in (SERVING, NOT_SERVING)
            place_version(tmp_path, "m", 2)
            while next(call).status != SERVING:
                pass
            shutil.rmtree(tmp_path / "m" / "2")
            while next(call).status == SERVING:
                pass
            call.cancel()


def test_versions_that_nobody_keeps_are_deleted(tmp_path: Path) -> None:
    toml = tmp_path / "infer.toml"
    toml.write_text("[models.m]\nkeep_versions = 2\n")
    root = tmp_path / "models"
    for version in (1, 2, 3):
        place_version(root, "m", version)
    with repository_server(root, toml=toml) as repository:
        repository.until(lambda: sorted(path.name for path in (root / "m").iterdir()) == ["2", "3"])
        assert repository.answer("m") == ("3", 3.0)
        place_version(root, "m", 4)
        repository.until_answer(("4", 4.0))
        repository.until(lambda: sorted(path.name for path in (root / "m").iterdir()) == ["3", "4"])
        removed = ("infer_model_events_total", frozenset({("event", "remove"), ("outcome", "ok")}))
        repository.until(lambda: scrape(repository.served.http_address).get(removed) == 2)
