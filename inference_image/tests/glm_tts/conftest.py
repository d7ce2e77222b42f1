"""Settings of the engine's tests."""

from __future__ import annotations

import hypothesis
import torch

# How long an example takes says more of what runs beside it than of the code.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Tensors here are tiny: more threads would only wait for each other.
torch.set_num_threads(1)
