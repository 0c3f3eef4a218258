"""The crash matrix: real processes killed at each of their points, alone and again while others clean up.

    python -m tests.crash [--saga NAME …] [--database sqlite|postgresql] [--full]
    python -m tests.crash --replay server.create/sqlite/killed@17/next@4

Nothing in the program knows of it: a process under test is a fork of one that has everything imported, in which the
boundaries to the world (transactions, messages, steps, renames) are wrapped before its `main` runs.
"""
