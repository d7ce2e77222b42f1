"""The engines, one module each; the server knows their interface only."""

import os

# onnxruntime sends usage data to its maker unless this is set before it is loaded
# (microsoft/onnxruntime, docs/Privacy.md).
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
