"""The nouns, as frozen records. Pure: no clock, no chance, no files."""
