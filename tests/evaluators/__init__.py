"""What AWS does by itself, later: evaluators of stored configurations, with a fake clock."""
