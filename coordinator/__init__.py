"""The coordinator: it orders sealed changes and knows who may do what."""
