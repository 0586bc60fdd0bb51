from infer._core.grpc_stream import ColdCall

class Http2Session:
    def finish_cold(self, call: ColdCall, code: int, message: bytes) -> None: ...
