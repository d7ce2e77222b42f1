"""`python -m speech_server`: the service with the bundled CPU voice."""

from __future__ import annotations

import asyncio
import logging
import sys

from pydantic import ValidationError

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
    if settings.model_directory is not None:
        logging.getLogger(__package__).warning(
            "the bundled voice brings its own weights: nothing in %s is read",
            settings.model_directory,
        )
    return asyncio.run(serve(settings, HibariEngine()))


if __name__ == "__main__":
    sys.exit(main())
