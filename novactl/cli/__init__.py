"""The command line: parse, one api call, print. typer, rich and tabulate are imported nowhere else.

`run` is where errors become exit statuses; `root` is the table of nouns; `tree` imports a noun and builds a verb only
when it is used; one file a noun holds its verbs; `columns` says what tables show; `render` prints.
"""
