"""The receivers: OTLP over HTTP and gRPC into the log, and the decoder of what they logged."""
