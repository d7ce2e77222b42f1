"""What is computed for a voice's pods, before anything is declared."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from voicemesh import ModelWeights, TtsVoiceServiceArgs, VoiceVariant
from voicemesh.arguments import DNS_LABEL
from voicemesh.service import pod_storage
from voicemesh.service.arguments import LONGEST_DEPLOYMENT, VARIANT_NAME
from voicemesh.service.autoscalers import pod_names
from voicemesh.service.workload import (
    disruption_budget,
    replacement_seconds,
    rollout_timeouts,
    termination_grace_seconds,
)

SERVICES = st.from_regex(DNS_LABEL, fullmatch=True)
VARIANTS = st.from_regex(VARIANT_NAME, fullmatch=True)
RANDOM_PART = st.from_regex(re.compile(r"[a-z0-9]{5,10}"), fullmatch=True)
SIZES = st.floats(0.001, 2000)


@given(st.lists(st.tuples(SERVICES, VARIANTS), min_size=2, max_size=2, unique=True))
def test_no_two_variants_of_any_services_have_objects_of_the_same_name(
    pairs: list[tuple[str, str]],
) -> None:
    first, second = ("-".join(pair) for pair in pairs)
    assert first != second


def test_with_dashes_in_the_names_of_variants_they_would() -> None:
    assert "-".join(("speech", "a-b")) == "-".join(("speech-a", "b"))
    assert VARIANT_NAME.fullmatch("a-b") is None


@given(service=SERVICES, variant=VARIANTS, parts=st.tuples(RANDOM_PART, RANDOM_PART))
def test_the_autoscalers_query_means_the_pods_of_its_deployment_alone(
    service: str, variant: str, parts: tuple[str, str]
) -> None:
    pods = re.compile(pod_names(f"{service}-{variant}"))
    assert pods.fullmatch("-".join((service, variant, *parts)))
    assert not pods.fullmatch("-".join((service, variant, "canary", *parts)))
    assert not pods.fullmatch("-".join((f"other-{service}", variant, *parts)))


def _pod_name(deployment: str, replica_set: str) -> str:
    """As Kubernetes makes it, which has 63 characters for it and five random ones at the end."""
    return f"{deployment}-{replica_set}-"[:58] + "x4k2p"


@given(st.integers(1, LONGEST_DEPLOYMENT), st.integers(0, 2**32 - 1))
def test_the_autoscalers_query_means_the_pods_of_any_deployment_whose_name_is_allowed(
    length: int, replica_set: int
) -> None:
    deployment = "d" * length
    assert re.fullmatch(pod_names(deployment), _pod_name(deployment, str(replica_set)))


def test_pods_of_longer_names_would_not_be_found() -> None:
    deployment = "d" * (LONGEST_DEPLOYMENT + 1)
    assert not re.fullmatch(pod_names(deployment), _pod_name(deployment, "4294967295"))


@given(SIZES)
def test_the_disk_that_is_set_aside_holds_the_weights(size_gib: float) -> None:
    model = ModelWeights("s3://voices/models/1/", "0" * 64, size_gib)
    quantity = pod_storage.disk_requests(model)["ephemeral-storage"]
    reserved = float(quantity[:-2]) / (1024 if quantity.endswith("Mi") else 1)
    assert reserved >= size_gib + 1 / 32


@given(SIZES)
def test_weights_may_come_as_slowly_as_from_a_plain_disk(size_gib: float) -> None:
    model = ModelWeights("s3://voices/models/1/", "0" * 64, size_gib)
    assert pod_storage.fetch_seconds(model) > size_gib * 1024 / 100
    assert pod_storage.fetch_seconds(None) == 0


@given(
    replicas=st.integers(1, 100),
    stream=st.integers(1, 3600),
    pull=st.integers(1, 3600),
    start=st.integers(1, 3600),
)
def test_a_rollout_is_awaited_for_as_long_as_its_pods_one_after_the_other_may_take(
    replicas: int, stream: int, pull: int, start: int
) -> None:
    variant = VoiceVariant("stable", "1.0", "speech:1", replicas=replicas)
    args = TtsVoiceServiceArgs(
        "tts",
        [variant],
        max_stream_seconds=stream,
        image_pull_seconds=pull,
        startup_seconds=start,
    )
    one = replacement_seconds(args, variant)
    assert one >= termination_grace_seconds(stream) + pull + start
    assert rollout_timeouts(args, variant).update == f"{replicas * one}s"


@given(st.integers(1, 100))
def test_some_pod_can_always_be_evicted_however_few_there_are(replicas: int) -> None:
    variant = VoiceVariant("stable", "1.0", "speech:1", replicas=replicas)
    budget = disruption_budget("speech", variant)
    assert budget.max_unavailable == 1
    assert budget.min_available is None
