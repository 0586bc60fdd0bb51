"""SIGHUP: the settings are read again, the models' and tenants' among them, and those that apply to a server that runs
are applied.

Settings that cannot be used change nothing (F45): the old ones stay, and log, audit log and a metric say why. Loop
thread only; files are read on another.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from infer.config import Settings
from infer.config_changes import Change, changes, merged
from infer.errors import ConfigError
from infer.models.settings import ModelSettings
from infer.models.written import Written
from infer.quotas import Quotas, differences
from infer.security.audit import AuditLog

log = logging.getLogger("infer.server")

EVENT = "settings"
DONE, REFUSED, LATER = "done", "refused", "at the next start"


class ModelsReload:
    """What is written for models outside of their directories. `read` gives it as it is now, or raises ConfigError."""

    def __init__(self, written: Mapping[str, ModelSettings], read: Callable[[], Written],
                 apply: Callable[[Mapping[str, ModelSettings]], None]) -> None:
        self.written = written          # what holds
        self.read = read
        self._apply = apply

    def take(self, new: Written) -> bool:
        """Whether anything has changed."""
        for problem in new.problems:
            log.warning("%s", problem)
        if new.models == self.written:
            return False
        self.written = new.models
        self._apply(new.models)
        return True


class QuotasReload:
    """What is written for tenants; it is read with what is written for models."""

    def __init__(self, quotas: Quotas, apply: Callable[[Quotas], None]) -> None:
        self.quotas = quotas            # what holds
        self._apply = apply

    def take(self, new: Quotas) -> list[str]:
        """What has changed, in words."""
        found = differences(self.quotas, new)
        if new != self.quotas:
            self._apply(new)
            self.quotas = new
        return found


class SettingsReload:
    """One per server. `read` gives the settings as they are written now, or raises ConfigError."""

    def __init__(self, settings: Settings, read: Callable[[], Settings], audit: AuditLog,
                 apply: Mapping[str, Callable[[Any], None]], *, models: ModelsReload, quotas: QuotasReload) -> None:
        self.settings = settings        # what holds
        self.problem = ""               # of those that are written; "" where they can be used
        self._read = read
        self._audit = audit
        self._apply = apply
        self._models = models
        self._quotas = quotas
        self._turn = asyncio.Lock()

    async def run(self, who: str) -> None:
        """Never raises for what is written."""
        async with self._turn:
            try:
                new, written = await asyncio.get_running_loop().run_in_executor(
                    None, lambda: (self._read(), self._models.read()))
            except ConfigError as error:
                self.problem = error.message
                log.error("the settings were read again and cannot be used; nothing has changed: %s", error.message)
                self._audit.record(EVENT, outcome=REFUSED, who=who, detail=error.message)
                return
            self.problem = ""
            found = changes(self.settings, new)
            self.settings = merged(self.settings, new)
            for change in found.live:
                self._applied(change, who)
            for change in found.restart:
                log.warning("%s applies from the next start on", change)
                self._audit.record(EVENT, outcome=LATER, who=who, detail=str(change))
            quotas = self._quotas.take(written.quotas)
            for text in quotas:
                log.info("%s", text)
                self._audit.record(EVENT, outcome=DONE, who=who, detail=text)
            # What comes of it, model by model, is the manager's to say.
            if self._models.take(written):
                log.info("the settings of models were read again, and are applied")
            elif not any(found) and not quotas:
                log.info("the settings were read again: nothing has changed")

    def _applied(self, change: Change, who: str) -> None:
        apply = self._apply.get(change.name)
        if apply is not None:
            apply(change.new)
        log.info("%s", change)
        self._audit.record(EVENT, outcome=DONE, who=who, detail=str(change))
