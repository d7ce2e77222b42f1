"""How components check their arguments: all faults at once, before any resource is declared."""

from __future__ import annotations

import re
from typing import Any, Final

import pulumi

DNS_LABEL: Final = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
HOSTNAME: Final = re.compile(rf"({DNS_LABEL.pattern}\.)+{DNS_LABEL.pattern}")
URL: Final = re.compile(r"https?://[A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?(:\d{1,5})?(/\S*)?")
ARN: Final = re.compile(r"arn:[a-z-]+:[a-z0-9-]+:[a-z0-9-]*:[0-9]*:.+")
LABEL_VALUE: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

LABEL_KEY: Final = re.compile(
    r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)


class ArgumentsError(pulumi.InputPropertiesError):
    """A component was given arguments that it cannot work with.

    The message has one line for each fault: component, argument, value and what is allowed.
    """


class Faults:
    """Collects what is wrong with the arguments of one component.

    Args:
        component: name of the component, with which each line of the message starts.
    """

    def __init__(self, component: str) -> None:
        self._component = component
        self._found: list[tuple[str, str]] = []

    def require(self, holds: bool, path: str, value: object, allowed: str) -> None:
        """Notes a fault of the argument at `path` unless `holds`."""
        if not holds:
            self._found.append((path, f"is {value!r}; allowed: {allowed}"))

    def matches(self, pattern: re.Pattern[str], path: str, value: Any, allowed: str) -> None:
        """Notes a fault where a string that is known by now does not match."""
        if not is_known(value):
            return
        fits = isinstance(value, str) and pattern.fullmatch(value) is not None
        self.require(fits, path, value, allowed)

    def dns_label(self, path: str, value: Any) -> None:
        """The name of a Kubernetes object."""
        self.matches(DNS_LABEL, path, value, "up to 63 of a-z, 0-9 and '-', as in 'tts-a'")

    def hostname(self, path: str, value: Any) -> None:
        """A full host name, without wildcards."""
        self.matches(HOSTNAME, path, value, "a host name in lower case, as in 'tts.example.com'")

    def at_least(self, minimum: float, path: str, value: Any) -> None:
        """A number with a lower bound."""
        if is_known(value):
            number = isinstance(value, (int, float)) and not isinstance(value, bool)
            self.require(number and value >= minimum, path, value, f"a number ≥ {minimum:g}")

    def whole_number(self, minimum: int, path: str, value: Any) -> None:
        """A count, with a lower bound."""
        if is_known(value):
            whole = isinstance(value, int) and not isinstance(value, bool)
            allowed = f"a whole number ≥ {minimum}"
            self.require(whole and value >= minimum, path, value, allowed)

    def arn(self, path: str, value: Any) -> None:
        """The full name of something in AWS."""
        self.matches(ARN, path, value, "an ARN, as in 'arn:aws:s3:::name'")

    def unique(self, path: str, values: list[str], what: str) -> None:
        """Notes each value that occurs more than once."""
        for value in sorted({v for v in values if values.count(v) > 1}):
            self.require(False, path, value, f"each {what} once")

    def raise_any(self) -> None:
        """Raises `ArgumentsError` if anything was found."""
        if self._found:
            raise ArgumentsError(
                "\n".join(f"{self._component}: {path} {fault}" for path, fault in self._found),
                [{"property_path": path, "reason": fault} for path, fault in self._found],
            )


def is_known(value: object) -> bool:
    """Whether an input is a plain value, not an output that resolves later."""
    return not isinstance(value, pulumi.Output) and not hasattr(value, "__await__")
