"""The program of an environment: typed configuration in, composed components out."""
