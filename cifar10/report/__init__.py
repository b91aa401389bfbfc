"""What a trained classifier is worth: pure functions of arrays, that know nothing of models."""
