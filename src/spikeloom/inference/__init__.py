"""Running a trained model: the event-driven engine and what is built on it."""
