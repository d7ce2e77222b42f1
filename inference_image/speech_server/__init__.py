"""The speech service: an OpenAI-compatible HTTP server over an exchangeable engine.

`app.create_app(settings, engine)` makes the service, `engine.Engine` is what it speaks with, and
`python -m speech_server` runs it with the bundled CPU voice.
"""
