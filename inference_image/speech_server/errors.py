"""Everything a client may be told, by what it can do about it.

ApiError
├── InvalidRequestError    400  change the request
├── PermissionDeniedError  403  send a token with the scope that is missing
├── NotFoundError          404  ask for something that exists
├── PayloadTooLargeError   413  send less
├── OverloadedError        429  wait as long as Retry-After says
├── EngineFailedError      500  try again; report the request id
└── NotReadyError          503  wait until the server is warm
"""

from __future__ import annotations

from typing import Any


class ApiError(Exception):
    """An answer other than audio, sent before the first byte, in the form that OpenAI's has."""

    status = 500
    type = "server_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.param = param
        self.retry_after_seconds = retry_after_seconds

    def body(self) -> dict[str, Any]:
        return error_body(self.message, self.type, self.param, self.code)

    def headers(self) -> dict[str, str]:
        if self.retry_after_seconds is None:
            return {}
        return {"Retry-After": str(self.retry_after_seconds)}


class InvalidRequestError(ApiError):
    status = 400
    type = "invalid_request_error"


class PermissionDeniedError(ApiError):
    status = 403
    type = "invalid_request_error"


class NotFoundError(ApiError):
    status = 404
    type = "invalid_request_error"


class PayloadTooLargeError(ApiError):
    status = 413
    type = "invalid_request_error"


class OverloadedError(ApiError):
    status = 429
    type = "rate_limit_error"


class EngineFailedError(ApiError):
    status = 500


class NotReadyError(ApiError):
    status = 503


def error_body(message: str, type_: str, param: str | None, code: str | None) -> dict[str, Any]:
    """The body of an error. JSON may name half a character, which no answer can repeat."""
    fields = {"message": message, "type": type_, "param": param, "code": code}
    return {"error": {name: _encodable(value) for name, value in fields.items()}}


def _encodable(value: str | None) -> str | None:
    return None if value is None else value.encode(errors="replace").decode()
