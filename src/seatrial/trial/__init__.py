"""One run: a trial in, a run directory and a verdict out."""

from seatrial.trial.model import BadTrial, Trial, parse_duration

__all__ = ["BadTrial", "Trial", "parse_duration"]
