"""Serves the components to Pulumi's engine: what `PulumiPlugin.yaml` makes it start."""

from voicemesh.package import main

main()
