"""Checkers: a run's records in, a verdict with evidence out."""

from seatrial.checkers.base import Anomaly, Checker, Evidence, Validity, Verdict, merge, run_checkers
from seatrial.checkers.catalogue import UnknownModel, by_model, models, names

__all__ = [
    "Anomaly",
    "Checker",
    "Evidence",
    "UnknownModel",
    "Validity",
    "Verdict",
    "by_model",
    "merge",
    "models",
    "names",
    "run_checkers",
]
