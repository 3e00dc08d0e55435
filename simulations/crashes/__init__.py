"""A crash at every step: short stories, told once to count the effects of each machine, then once more for each of them."""
