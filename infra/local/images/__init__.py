"""The images that the environment's nodes run, built here and kept as archives."""

from infra.local.images.catalogue import (
    IMAGES,
    SPEECH_UPDATE_TAG,
    Image,
    reference,
)
from infra.local.images.ensure import ensure_images

__all__ = [
    "IMAGES",
    "SPEECH_UPDATE_TAG",
    "Image",
    "ensure_images",
    "reference",
]
