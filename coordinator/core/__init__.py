"""What the coordinator decides: pure, without clock, chance, disk or network."""
