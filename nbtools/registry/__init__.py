"""Which model may serve: registered models and their versions."""
