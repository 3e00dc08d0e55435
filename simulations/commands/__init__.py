"""What each command of ``kin-sim`` does."""
