from infer._core.cold_call import ColdCall

class Http2Session:
    def finish_cold(self, call: ColdCall, code: int, message: bytes) -> None: ...
