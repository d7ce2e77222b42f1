"""Reusable Pulumi components for a governed text-to-speech service."""
