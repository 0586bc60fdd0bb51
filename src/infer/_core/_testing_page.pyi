from infer._core.protocol import Connection, Endpoint

PATH: str

def connection(endpoint: Endpoint) -> Connection: ...
