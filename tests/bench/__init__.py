"""Figures this project promises, each measured beside what it is compared with: `tests/run bench [NAME]`."""
