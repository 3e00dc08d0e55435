"""The storage node: it keeps sealed chunks by id."""
