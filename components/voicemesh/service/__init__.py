"""`TtsVoiceService`: a voice in variants, with its traffic and its resilience.

`arguments` says what can be asked for, `workload`, `traffic` and `resilience` decide what follows
from it, and `component` declares the resources.
"""
