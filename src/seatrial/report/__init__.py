"""What a run's directory shows: one page for people, and lines for the console."""

from seatrial.report.html import render
from seatrial.report.summary import MalformedVerdict, RunSummary, load_summary

__all__ = ["MalformedVerdict", "RunSummary", "load_summary", "render"]
