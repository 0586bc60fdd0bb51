"""RecordOutcome: what clients report of what became of replies. Loop thread."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from infer.outcome_metrics import Outcome
from infer.proto import message
from infer.services.call import Handler, unary
from infer.services.views import OutcomesView


def outcome_rpcs(outcomes: OutcomesView) -> Mapping[str, Handler]:
    def record(request: Any) -> Any:
        # Many small ones would take the loop long to look at.
        outcomes.ensure_number(len(request.outcomes))
        found = outcomes.record([Outcome(each.model, each.metric, each.value, each.request_id, each.routing_key)
                                 for each in request.outcomes])
        return message("inference.RecordOutcomeResponse")(
            accepted=found["accepted"], duplicates=found["duplicate"], unknown=found["unknown"], late=found["late"])

    return {"RecordOutcome": unary("inference.RecordOutcomeRequest", record)}
