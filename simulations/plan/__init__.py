"""The first tier of the simulator: identify, planner, authoring and fold alone, on histories and trees from a seed."""
