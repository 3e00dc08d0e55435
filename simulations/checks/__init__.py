"""The invariants, each as something that looks at a world and at the ledger and finds what must not be."""
