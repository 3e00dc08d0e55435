"""Pages that show a person what happened in a history: a space-time diagram, the verdict, and what was reached."""
