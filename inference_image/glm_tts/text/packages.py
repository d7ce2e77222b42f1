"""Packages that only some texts need, imported when the first of them arrives."""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import Any

from glm_tts.text.errors import MissingPackageError


def load(module: str, package: str, purpose: str) -> Any:
    """The module of a package that `purpose` needs.

    Raises:
        MissingPackageError: the package is not installed; says how to install it.
    """
    try:
        with warnings.catch_warnings():
            # jieba imports pkg_resources where there is one, which warns about itself.
            warnings.simplefilter("ignore")
            return import_module(module)
    except ImportError as error:
        raise MissingPackageError(package, purpose) from error
