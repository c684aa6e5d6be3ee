"""What stands behind the pytest plugin (`seatrial.pytest_plugin`); imported inside its hooks only."""
