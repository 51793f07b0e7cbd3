"""Learning-rate schedules that a config can name, and what a training adds to its optimiser."""
