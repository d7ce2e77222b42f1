"""Where models, reference voices and the audio that is made are kept, and who may read them."""
