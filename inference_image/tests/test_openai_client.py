"""The stock `openai` client, unchanged, over a socket."""

from __future__ import annotations

import asyncio
import io
import wave
from collections.abc import Iterator

import openai
import pytest

from inference_image.tests.scripted import RunningServer

SENTENCE = "The stock client hears the audio as it is made."


@pytest.fixture
def stock(speaking: RunningServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{speaking.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_wav_is_created(stock: openai.OpenAI) -> None:
    answer = stock.audio.speech.create(
        model="tts-1", voice="heart", input=SENTENCE, response_format="wav"
    )
    with wave.open(io.BytesIO(answer.content)) as wav:
        assert wav.getframerate() == 24_000
        assert len(wav.readframes(wav.getnframes())) > 2 * 24_000


def test_pcm_is_streamed(stock: openai.OpenAI) -> None:
    with stock.audio.speech.with_streaming_response.create(
        model="tts-1", voice="heart", input=SENTENCE, response_format="pcm", speed=1.25
    ) as answer:
        assert answer.headers["content-type"] == "audio/pcm"
        assert answer.headers["transfer-encoding"] == "chunked"
        assert sum(map(len, answer.iter_bytes())) > 2 * 24_000


def test_the_asynchronous_client_streams_too(speaking: RunningServer) -> None:
    async def hear() -> int:
        async with (
            openai.AsyncOpenAI(base_url=f"{speaking.url}/v1", api_key="unused") as client,
            client.audio.speech.with_streaming_response.create(
                model="tts-1", voice="heart", input=SENTENCE, response_format="pcm"
            ) as answer,
        ):
            return sum([len(part) async for part in answer.iter_bytes()])

    assert asyncio.run(hear()) > 2 * 24_000


def test_a_refusal_arrives_as_the_clients_own_exception(stock: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        stock.audio.speech.create(model="tts-1", voice="heart", input="你好")
    assert caught.value.code == "unsupported_characters"
    assert caught.value.param == "input"
    assert caught.value.request_id


def test_an_unknown_model_is_not_found(stock: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        stock.audio.speech.create(model="whisper-1", voice="heart", input=SENTENCE)
    assert caught.value.code == "model_not_found"
