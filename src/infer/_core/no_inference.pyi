from typing import final

from infer._core.request import RequestSink

@final
class NoInference(RequestSink): ...
