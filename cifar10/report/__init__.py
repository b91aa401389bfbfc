"""How good a trained classifier is: pure functions of arrays that know nothing of models."""
