"""An experiment: arms that a model's requests are divided over, and what their outcomes say of them. Pure.

It decides nothing about traffic but one thing: a guardrail that fails ends it. What its outcomes come to is a decision
that people act on: an arm is better than the control, or none is by as much as would matter, or there is not enough
data yet. Shares of units that their weights do not explain void that: then outcomes are lost, or units not dealt by
chance, and no comparison means anything.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from infer.errors import InvalidArgument
from infer.experiments import ExperimentSettings
from infer.traffic.guardrails import FAIL, StepTests, Verdict
from infer.traffic.outcomes import Sums
from infer.traffic.seen import Seen
from infer.traffic.sequential import sample_ratio_log_e
from infer.traffic.tracks import Block, Track

WINNER = "winner"
NO_DIFFERENCE = "no difference"
NOT_ENOUGH = "not enough data"
GUARDRAIL = "stopped by guardrail"
MISMATCH = "sample ratio mismatch"
RESULTS = (WINNER, NO_DIFFERENCE, NOT_ENOUGH, GUARDRAIL, MISMATCH)
# With what probability shares that are as they should be are ever taken for others.
RATIO_ALPHA = 0.001
REASON_CHARACTERS = 1024
ITSELF = "experiment"


@dataclass(frozen=True)
class Decision:
    result: str
    reason: str
    winner: str = ""


class Experiment:
    """One experiment of one model."""

    def __init__(self, name: str, settings: ExperimentSettings, now: float, who: str, reason: str = "") -> None:
        self.name, self.settings = name, settings
        self.started, self.who, self.reason = now, who, reason[:REASON_CHARACTERS]
        self.ended, self.ended_by, self.end_reason = 0.0, "", ""
        self.failed = ""            # the guardrail that has, in words
        self.arms = tuple(arm.name for arm in settings.arms)
        self.tracks = [Track(metric, self.arms, settings.alpha / len(settings.metrics)) for metric in settings.metrics]
        self.sums: Mapping[str, Mapping[str, Sums]] = {}
        held = settings.held
        self._turn = 0
        self._guards = {} if held is None else {arm: StepTests(held) for arm in self.arms[1:]}

    # What happens.

    def look(self, now: float, sums: Mapping[str, Mapping[str, Sums]], seen: Mapping[str, Seen]) -> bool:
        """`sums`: by arm and metric, in all; `seen`: of each arm's calls since the look before. Whether a block of
        outcomes has closed."""
        self.sums = sums
        closed = self._close_one(now)
        control = seen.get(self.arms[0])
        for arm, tests in self._guards.items():
            if control is not None and arm in seen:
                tests.add(control, seen[arm])
                verdict = tests.verdict()
                if verdict.result == FAIL and not self.failed:
                    self.failed = f"{arm}: {verdict.reason}"
        return closed

    def _close_one(self, now: float) -> bool:
        """Of all metrics at most one has its block closed, which takes the loop a while; each has its turn."""
        for place in range(len(self.tracks)):
            track = self.tracks[(self._turn + place) % len(self.tracks)]
            if track.look(now, {arm: of[track.metric.name] for arm, of in self.sums.items()
                                if track.metric.name in of}):
                self._turn += place + 1
                return True
        return False

    def end(self, now: float, who: str, reason: str) -> None:
        self.ended, self.ended_by, self.end_reason = now, who, reason[:REASON_CHARACTERS]

    # What it comes to.

    @property
    def state(self) -> str:
        return "stopped" if self.ended else "running"

    @property
    def verdicts(self) -> dict[str, Verdict]:
        """Of the guardrails, by arm."""
        return {arm: tests.verdict() for arm, tests in self._guards.items()}

    @property
    def units(self) -> list[float]:
        """Of each arm, those that the first metric has an outcome of."""
        name = self.settings.metrics[0].name
        return [self.sums.get(arm, {}).get(name, Sums()).n for arm in self.arms]

    @property
    def ratio_log_e(self) -> float:
        """Evidence that units were not dealt by the weights."""
        units = self.units
        if not sum(units):
            return 0.0
        return float(sample_ratio_log_e(np.array(units), np.array([arm.weight for arm in self.settings.arms])))

    def decision(self) -> Decision:
        return decided(self.tracks[0], self.settings, ratio_log_e=self.ratio_log_e, failed=self.failed)

    def copied(self) -> Experiment:
        """As it is now, for another thread to read."""
        found = copy.copy(self)
        found.tracks = [track.copied() for track in self.tracks]
        return found

    # The record.

    def to_record(self) -> dict[str, Any]:
        return {"settings": self.settings.to_record(), **{name: getattr(self, name) for name in _FIELDS}}

    def blocks_record(self) -> dict[str, Any]:
        return {track.metric.name: [[block.time, *(list(each) for each in block.sums)] for block in track.blocks]
                for track in self.tracks}

    @classmethod
    def from_record(cls, record: Mapping[str, Any], sums: Mapping[str, Any], blocks: Mapping[str, Any]) -> Experiment:
        """`sums` and `blocks` as they were kept; {} for none. Raises InvalidArgument for what is no record of one."""
        try:
            found = cls(record["name"], ExperimentSettings.from_record(record["settings"]), record["started"],
                        record["who"], record["reason"])
            for track in found.tracks:
                for time, *each in blocks.get(track.metric.name, ()):
                    track.close(Block(time, tuple(Sums(*of) for of in each)))
            found.sums = {arm: {metric: Sums(*of) for metric, of in each.items()} for arm, each in sums.items()}
            found._raise_sums()
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise InvalidArgument(f"the record of an experiment is damaged: {error!r}") from None
        return found

    def _raise_sums(self) -> None:
        """The two are kept one after the other: what a block has counted has been counted."""
        sums = {arm: dict(of) for arm, of in self.sums.items()}
        for track in self.tracks:
            for arm, last in zip(self.arms, track.last, strict=True):
                if last.n > sums.get(arm, {}).get(track.metric.name, Sums()).n:
                    sums.setdefault(arm, {})[track.metric.name] = last
        self.sums = sums


# One that is kept is under way.
_FIELDS = ("name", "started", "who", "reason")


def decided(track: Track, settings: ExperimentSettings, *, ratio_log_e: float = 0.0, failed: str = "") -> Decision:
    """By the outcomes of the first metric, unless something else comes before them."""
    if failed:
        return Decision(GUARDRAIL, failed)
    if ratio_log_e >= math.log(1.0 / RATIO_ALPHA):
        return Decision(MISMATCH, "the arms' shares of units with an outcome are not those of their weights, so that "
                                  "no difference between them means anything: find out which outcomes are lost")
    control, min_effect = track.arms[0], settings.min_effect
    effects = track.effects
    found = {arm: track.finding(effect, min_effect) for arm, effect in effects.items()}
    better = [arm for arm, finding in found.items() if finding == "better"]
    if better:
        sign = 1 if track.metric.better == "higher" else -1
        best = max(better, key=lambda arm: sign * effects[arm].effect)
        return Decision(WINNER, _said(track, best), best)
    if found and all(finding == "worse" for finding in found.values()):
        return Decision(WINNER, "; ".join(_said(track, arm) for arm in found), control)
    if found and all(finding in ("alike", "worse") for finding in found.values()):
        return Decision(NO_DIFFERENCE, f"no arm is better than {control} by {min_effect:g} or more of "
                                       f"{track.metric.name}: " + "; ".join(_said(track, arm) for arm in found))
    return Decision(NOT_ENOUGH, "; ".join(_said(track, arm) for arm in found) or "too few outcomes to say anything")


def _said(track: Track, arm: str) -> str:
    effect = track.effects[arm]
    return (f"{track.metric.name} of {arm} less that of {track.arms[0]}: {effect.effect:+.4g}, from {effect.low:+.4g} "
            f"to {effect.high:+.4g}")
