"""SIGHUP: what applies is applied, what does not is said, and settings with an error change nothing (F45)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from infer.config import Settings
from infer.errors import ConfigError
from infer.models.problems import error as problem
from infer.models.problems import errors_of, warning
from infer.models.settings import ModelSettings
from infer.models.written import Written
from infer.quotas import NONE
from infer.reload import ModelsReload, QuotasReload, SettingsReload
from tests.support.cold_server import FakeAudit


class Reloading:
    def __init__(self) -> None:
        self.written: Settings | ConfigError = Settings()
        self.applied: list[Any] = []
        self.audit = FakeAudit()
        self.models = Written({}, [])
        self.reload = SettingsReload(Settings(), self._read, self.audit,  # type: ignore[arg-type]
                                     {"log_level": self.applied.append},
                                     models=ModelsReload({}, self._read_models, self.applied.append),
                                     quotas=QuotasReload(NONE, self.applied.append))

    def _read_models(self) -> Written:
        if errors_of(self.models.problems):
            raise ConfigError(str(self.models.problems[0]))
        return self.models

    def _read(self) -> Settings:
        if isinstance(self.written, ConfigError):
            raise self.written
        return self.written

    async def to(self, written: Settings | ConfigError) -> list[tuple[str, str, str]]:
        """The rows of the audit log that this adds: outcome, who, detail."""
        self.written = written
        self.audit.rows.clear()
        await self.reload.run("SIGHUP")
        assert {row["event"] for row in self.audit.rows} <= {"settings"}
        return [(row["outcome"], row["who"], row["detail"]) for row in self.audit.rows]


@pytest.fixture
def reloading() -> Reloading:
    return Reloading()


async def test_what_applies_is_applied_and_the_rest_is_said(
        reloading: Reloading, caplog: pytest.LogCaptureFixture) -> None:
    assert await reloading.to(Settings(log_level="debug", drain_delay=1.0, port=9)) == [
        ("done", "SIGHUP", "--drain-delay: 5.0 -> 1.0"), ("done", "SIGHUP", "--log-level: info -> debug"),
        ("at the next start", "SIGHUP", "--port: 8001 -> 9")]
    assert reloading.applied == ["debug"]
    held = reloading.reload.settings
    assert (held.drain_delay, held.log_level, held.port) == (1.0, "debug", 8001)
    assert "--port: 8001 -> 9 applies from the next start on" in caplog.text
    # It still waits for one.
    assert await reloading.to(Settings(log_level="debug", drain_delay=1.0, port=9)) == [
        ("at the next start", "SIGHUP", "--port: 8001 -> 9")]
    assert await reloading.to(held) == []


async def test_f45_settings_with_an_error_change_nothing(
        reloading: Reloading, caplog: pytest.LogCaptureFixture) -> None:
    error = ConfigError("one problem in the settings:\n  infer.toml:3: port: got 'x'")
    assert await reloading.to(error) == [("refused", "SIGHUP", error.message)]
    assert (reloading.reload.settings, reloading.applied) == (Settings(), [])
    assert "infer.toml:3" in reloading.reload.problem
    assert "infer.toml:3" in caplog.text
    assert await reloading.to(Settings(log_level="debug")) == [("done", "SIGHUP", "--log-level: info -> debug")]
    assert reloading.reload.problem == ""


async def test_paths_are_told_apart(reloading: Reloading) -> None:
    assert await reloading.to(Settings(paths=(Path("a"), Path("b")))) == [
        ("at the next start", "SIGHUP", "PATH: none -> a b")]


async def test_the_settings_of_models_are_taken_when_they_have_changed(
        reloading: Reloading, caplog: pytest.LogCaptureFixture) -> None:
    written = {"m": ModelSettings("m", labels={"stable": 1})}
    reloading.models = Written(written, [warning("infer.toml:3", "x", "W101")])
    assert await reloading.to(Settings()) == []
    assert reloading.applied == [written]
    assert "infer.toml:3: x" in caplog.text
    reloading.models = Written(dict(written), [])
    assert await reloading.to(Settings()) == []
    assert reloading.applied == [written]


async def test_f45_settings_of_models_with_an_error_change_nothing(reloading: Reloading) -> None:
    reloading.models = Written({"m": ModelSettings("m")}, [problem("infer.toml:3", "x", "E102")])
    ((outcome, _, detail),) = await reloading.to(Settings(log_level="debug"))
    assert (outcome, reloading.applied, reloading.reload.settings) == ("refused", [], Settings())
    assert "infer.toml:3: x" in detail
    reloading.models = Written({}, [])
    assert await reloading.to(Settings(log_level="debug")) == [("done", "SIGHUP", "--log-level: info -> debug")]
    assert reloading.applied == ["debug"]
