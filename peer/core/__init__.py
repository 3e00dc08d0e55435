"""What a device decides: pure, without clock, chance, disk or network."""
