"""What a storage node decides: pure, without clock, chance, disk or network."""
