"""Where chunks lie: one interface, several stores."""
