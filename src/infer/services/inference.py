"""inference.GRPCInferenceService in one table, but for ModelInfer and its stream: those are the pipeline's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from infer.errors import Unimplemented
from infer.services.call import Call, Handler
from infer.services.metadata import metadata_rpcs
from infer.services.outcomes import outcome_rpcs
from infer.services.repository import repository_rpcs
from infer.services.server_view import ServerView
from infer.services.settings import settings_rpcs
from infer.services.statistics import statistics_rpcs

SERVICE = "inference.GRPCInferenceService"
# What a client that finds the RPC in the .proto file gets for it.
NOT_SERVED = {f"{kind}SharedMemory{verb}": "tensors in shared memory are not supported; send them in the request"
              for kind in ("System", "Cuda") for verb in ("Status", "Register", "Unregister")}


def inference_service(server: ServerView) -> Mapping[str, Handler]:
    """The handler of each cold RPC by its path."""
    rpcs = {
        **metadata_rpcs(server),
        **statistics_rpcs(server),
        **repository_rpcs(server),
        **settings_rpcs(server),
        **outcome_rpcs(server.outcomes),
        **{method: _refusal(f"{method}: {text}") for method, text in NOT_SERVED.items()},
    }
    return {f"/{SERVICE}/{method}": handler for method, handler in rpcs.items()}


def _refusal(text: str) -> Handler:
    async def refuse(_: Call) -> NoReturn:
        raise Unimplemented(text)

    return refuse
