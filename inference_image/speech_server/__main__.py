"""`python -m speech_server`: the service with the engine that its settings name."""

from __future__ import annotations

import asyncio
import logging
import sys

from pydantic import ValidationError

from speech_server.engine import Engine
from speech_server.engines.hibari import HibariEngine
from speech_server.server import serve
from speech_server.settings import ENVIRONMENT_PREFIX, Settings, UnknownVariablesError

_BAD_SETTINGS = 2


def main() -> int:
    try:
        settings = Settings()
    except UnknownVariablesError as error:
        print(error, file=sys.stderr)
        return _BAD_SETTINGS
    except ValidationError as error:
        for fault in error.errors():
            name = ENVIRONMENT_PREFIX + "_".join(map(str, fault["loc"])).upper()
            print(f"{name}={fault['input']}: {fault['msg']}", file=sys.stderr)
        return _BAD_SETTINGS
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s %(message)s"
    )
    try:
        engine = _engine(settings)
    except (ImportError, ValueError) as error:
        print(f"{ENVIRONMENT_PREFIX}ENGINE={settings.engine}: {error}", file=sys.stderr)
        return _BAD_SETTINGS
    return asyncio.run(serve(settings, engine))


def _engine(settings: Settings) -> Engine:
    if settings.engine == "glm_tts":
        if settings.model_directory is None:
            raise ValueError(f"needs {ENVIRONMENT_PREFIX}MODEL_DIRECTORY, where its weights are")
        # It loads torch, which the bundled voice's image does not have.
        from speech_server.engines.glm_tts import GlmTtsEngine

        return GlmTtsEngine.on_this_machine(
            settings.model_directory,
            streams=settings.concurrency,
            sample_rate_hz=settings.sample_rate_hz,
            voice_bytes=settings.voice_cache_mib * 2**20,
        )
    if settings.model_directory is not None:
        logging.getLogger(__package__).warning(
            "the bundled voice brings its own weights: nothing in %s is read",
            settings.model_directory,
        )
    return HibariEngine()


if __name__ == "__main__":
    sys.exit(main())
