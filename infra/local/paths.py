"""Where the embedded environment keeps things.

Three places, by how long their content lives:

- `CACHE`: what was built or unpacked once, keyed by version and shared by all checkouts.
- `STATE`: one life of the environment, in the checkout that owns it; `down` deletes it.
- `RUN`: which checkout owns this machine's environment, and its processes; gone after a restart.
"""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("VOICEMESH_CACHE") or Path.home() / ".cache" / "voicemesh")
STATE = CHECKOUT / ".voicemesh"
RUN = Path("/run/voicemesh")
LOGS = STATE / "logs"
