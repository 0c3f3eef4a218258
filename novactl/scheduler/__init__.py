"""Where a server goes: filter, then weigh, and keep every reason. Pure: no clock, no chance, no files."""
