"""Random histories: what people do to a world, what goes wrong meanwhile, and who keeps account of it."""
