"""What the web application firewall adds to the time until the first byte, at 20 requests a second.

Needs root. Brings the environment and the lab up where they are not, and leaves down what was down.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from typing import Final

from tests.bench.environment import Figure
from tests.bench.quiet import quiet_lab
from tests.e2e.figures import note
from tests.e2e.lab import Lab, asking
from tests.e2e.scripted_upstream.server import Script
from tests.e2e.walled import VOICE, Walled
from tests.waf import corpus

RUNS: Final = 3
PER_SECOND: Final = 20
REQUESTS: Final = 600
WARM_UP: Final = 40
CONNECTIONS: Final = 4
ANSWER: Final = Script(chunks=1, size=1_920)
"""40 ms of audio."""

TEXT: Final = "Good morning. 早上好，欢迎收听今天的新闻。" * 10
"""Some seconds of speech."""


def figures() -> Iterator[Figure]:
    """Compares the gateway with its firewall, and the same gateway asking nobody."""
    with quiet_lab(VOICE) as lab, Walled(lab).asked():
        yield from added(Walled(lab))


def added(walled: Walled) -> Iterator[Figure]:
    """The medians of some runs, each of which takes both ways in turn."""
    runs = []
    for _ in range(RUNS):
        with_it = percentiles(walled.lab)
        with walled.not_asked():
            runs.append((with_it, percentiles(walled.lab)))
    for place, percentile in enumerate(("p50", "p99")):
        difference = statistics.median(asked[place] - not_asked[place] for asked, not_asked in runs)
        note("waf", f"first byte, added at {PER_SECOND}/s, {percentile}", difference, "ms")
        yield f"added at {PER_SECOND}/s, {percentile}, median of {RUNS}", f"{difference:.2f} ms"


def percentiles(lab: Lab) -> tuple[float, float]:
    """Median and 99th percentile of the time to the first byte, in milliseconds."""
    request = asking(
        ANSWER,
        token=lab.token(),
        body=corpus.speech("alloy").replace("Hello.", TEXT),
        count=WARM_UP + REQUESTS,
    )
    answers = lab.load(request, voice=VOICE, per_second=PER_SECOND, concurrency=CONNECTIONS)
    assert all(answer.is_good for answer in answers)
    seconds = [answer.first_byte_seconds for answer in answers[WARM_UP:]]
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    return cuts[49] * 1e3, cuts[98] * 1e3
