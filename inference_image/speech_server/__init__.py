"""The speech service: engine-neutral HTTP server."""
