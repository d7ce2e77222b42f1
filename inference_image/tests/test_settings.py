from __future__ import annotations

import pytest
from pydantic import ValidationError

from speech_server.__main__ import main
from speech_server.contract import HTTP_PORT
from speech_server.settings import Settings, UnknownVariablesError


def test_the_defaults_are_valid() -> None:
    assert Settings().port == HTTP_PORT


def test_a_variable_sets_its_field(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECH_QUEUE_LIMIT", "7")
    assert Settings().queue_limit == 7


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        setattr(Settings(), "port", 1)  # noqa: B010


def test_an_unknown_variable_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECH_QUEUE_LIMTI", "7")
    with pytest.raises(UnknownVariablesError, match=r"variables: SPEECH_QUEUE_LIMTI\. Known"):
        Settings()


def test_variables_that_kubernetes_injects_are_refused_with_the_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SPEECH_SERVICE_HOST", "10.96.0.7")
    with pytest.raises(UnknownVariablesError, match="enableServiceLinks: false"):
        Settings()


@pytest.mark.parametrize(
    ("name", "refused", "permitted"),
    [
        ("SPEECH_PORT", "tcp://10.96.0.7:8080", "8081"),
        ("SPEECH_MAX_CHARACTERS", "0", "1"),
        ("SPEECH_CONCURRENCY", "0", "1"),
        ("SPEECH_QUEUE_LIMIT", "-1", "0"),
        ("SPEECH_DRAIN_SECONDS", "-0.1", "0"),
        ("SPEECH_LOG_LEVEL", "loud", "debug"),
        ("SPEECH_ENGINE", "glm-tts", "hibari"),
        ("SPEECH_SAMPLE_RATE_HZ", "44100", "24000"),
        ("SPEECH_SAMPLE_RATE_HZ", "32000", "24000"),
        ("SPEECH_MODEL_DIRECTORY", "/nowhere", "/"),
        ("SPEECH_OUTPUTS_URI", "file:///nowhere", "file:///dev/shm"),
        ("SPEECH_OUTPUTS_URI", "s3://voices/outputs", "s3://voices/outputs/"),
    ],
)
def test_a_bad_value_ends_the_process_and_names_variable_and_value(
    name: str,
    refused: str,
    permitted: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(name, permitted)
    Settings()
    monkeypatch.setenv(name, refused)
    assert main() == 2
    assert capsys.readouterr().err.startswith(f"{name}={refused}: ")


@pytest.mark.parametrize("given", [True, False])
def test_weights_that_the_bundled_voice_does_not_read_are_told_of(
    given: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def serve(*_: object) -> int:
        return 0

    monkeypatch.setattr("speech_server.__main__.serve", serve)
    if given:
        monkeypatch.setenv("SPEECH_MODEL_DIRECTORY", "/etc")
    assert main() == 0
    assert ("nothing in /etc is read" in caplog.text) is given


def test_an_engine_without_its_weights_ends_the_process_and_says_what_it_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SPEECH_ENGINE", "glm_tts")
    assert main() == 2
    expected = "SPEECH_ENGINE=glm_tts: needs SPEECH_MODEL_DIRECTORY, where its weights are\n"
    assert capsys.readouterr().err == expected
