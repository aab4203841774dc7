"""Whatever writes a run of an experiment to MLflow."""
