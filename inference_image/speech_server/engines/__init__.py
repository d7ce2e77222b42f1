"""The engines that the server can run."""
