"""State: the schema, the engine and one file of queries per noun.

Every query is written once, in SQLAlchemy Core. On SQLite its text is compiled ahead (`compiled.py`, generated and
held equal by a test) and run by the standard library, because importing SQLAlchemy costs more than most commands take.
"""
