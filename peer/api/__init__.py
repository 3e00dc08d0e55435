"""The local interface by which commands and the page talk to the agent."""
