"""The images that the environment's nodes run, built here and kept as archives."""

from infra.local.images.catalogue import (
    IMAGES,
    SPEECH_UPDATE_TAG,
    Image,
    images_for,
    reference,
)
from infra.local.images.ensure import ensure_images

__all__ = [
    "IMAGES",
    "SPEECH_UPDATE_TAG",
    "Image",
    "ensure_images",
    "images_for",
    "reference",
]
