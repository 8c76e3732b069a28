"""The loop that trains one model with one optimizer, and then perhaps with a second."""

from __future__ import annotations

from onepass.study.record import Epoch, Outcome, Settings, Then

__all__ = ["Epoch", "Outcome", "Settings", "Then"]
