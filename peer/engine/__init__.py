"""Where the core meets I/O: observe, plan, act, record, for one folder at a time."""
