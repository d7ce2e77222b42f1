"""`UniqueName`: a name that nobody else in the world has, and that stays."""

from dataclasses import dataclass

import pulumi
from pulumi_random import RandomId

from voicemesh.arguments import Faults
from voicemesh.component import child_options

_RANDOM_BYTES = 4


@dataclass(frozen=True)
class UniqueNameArgs:
    """Arguments of `UniqueName`."""

    prefix: str
    """What the name begins with, up to 54 of a-z, 0-9 and '-'; with another, all of it changes."""

    def __post_init__(self) -> None:
        faults = Faults.of(self)
        faults.dns_label("prefix", self.prefix)
        faults.require(len(self.prefix) <= 54, "prefix", self.prefix, "up to 54 characters")
        faults.raise_any()


class UniqueName(pulumi.ComponentResource):
    """A prefix with eight random characters, made once: for what is named in a space that others
    share, as buckets are. https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    """

    value: pulumi.Output[str]
    """The name."""

    def __init__(
        self, name: str, args: UniqueNameArgs, opts: pulumi.ResourceOptions | None = None
    ) -> None:
        super().__init__("voicemesh:index:UniqueName", name, {}, opts)
        end = RandomId(
            name,
            byte_length=_RANDOM_BYTES,
            keepers={"prefix": args.prefix},
            opts=child_options(self),
        )
        self.value = pulumi.Output.concat(args.prefix, "-", end.hex)
        self.register_outputs({"value": self.value})
