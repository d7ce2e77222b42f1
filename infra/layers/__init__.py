"""The layers of an environment, each made of components only."""
