"""The situations of docs/simulation.md: which of them a history came through, told by what it left and by nothing else."""
