"""Two plain grpc.aio servers: what a competent user writes before looking for an inference server."""
