"""What happened: MLflow runs, lineage and the local history."""
